"""Contrasts between variants: what a study declares, what its plan says, and what a report concludes."""

import dataclasses

import pandas as pd
import pytest

from analysis.contrasts import contrast_frame, contrast_sentences, contrast_table, stars
from helpers.paths import ROOT
from muvla.errors import MuvlaError
from sweeps.contrasts import Contrasts, design_lines
from sweeps.loader import load_study

STUDY = load_study(ROOT / "experiments/recall_quick")


def rates(successes: dict[str, list[int]], n: int = 200, protocol: str = "p@1") -> pd.DataFrame:
    """Tidy lines of variants with these successes by training seed; each success is a right first touch of `n`."""
    lines = []
    for order, (variant, counts) in enumerate(successes.items()):
        for seed, count in enumerate(counts):
            lines.append(
                {"order": order, "variant": variant, "seed": seed, "U": 400, "protocol": protocol, "chance": 1 / 3}
                | {"intervention": "none", "never_fired": False, "choices": n, "best_constant": 0.34}
                | {"touch_rate": 1.0, "choice_rate": count / n, "success_rate": count / n}
                | {"choice_low": count / n - 0.07}
            )
    return pd.DataFrame(lines)


def test_the_published_question_is_a_contrast_with_the_seed_as_unit():
    frame = rates({"K=8": [200, 198, 200, 199, 200], "K=2": [66, 66, 70, 122, 65]})
    lines = contrast_frame(frame, Contrasts(), (("K=8", "K=2"),))
    success = lines[lines["metric"] == "success"].iloc[0]
    assert success["p"] == pytest.approx(2 / 252) and success["p_holm"] == success["p"] and success["primary"]
    assert success["difference"] == pytest.approx(0.608) and success["low"] > 0.4
    assert (success["learned"], success["reference_learned"]) == (5, 1)
    assert success["learned_p"] == pytest.approx(0.0476, abs=1e-3)  # Fisher's test of 5 against 1 of 5
    assert not lines[lines["metric"] != "success"]["primary"].any()  # other metrics enter no correction
    assert lines[lines["metric"] != "success"]["p_holm"].isna().all()
    assert "**" in contrast_sentences(lines)[0] and len(contrast_table(lines)) == 1


def test_planned_contrasts_that_have_not_run_count_in_the_correction():
    frame = rates({"K=8": [200] * 5, "K=2": [66, 67, 68, 69, 70]})
    pairs = (("K=8", "K=2"), ("K=8", "K=1"), ("K=8", "dummy"))
    lines = contrast_frame(frame, Contrasts(), pairs)
    assert lines[lines["primary"]]["p_holm"].iloc[0] == pytest.approx(3 * 2 / 252)


def test_equal_variants_have_no_stars_and_the_primary_metric_can_be_another():
    frame = rates({"a": [100, 120, 80, 90, 110], "b": [105, 95, 100, 85, 115]})
    lines = contrast_frame(frame, Contrasts(primary="choice"), (("a", "b"),))
    assert lines[lines["metric"] == "choice"]["primary"].all() and stars(lines["p"].iloc[0]) == ""
    assert lines["p"].iloc[0] > 0.3


def test_a_paired_test_pairs_seeds():
    counts = [60, 80, 100, 120, 140, 160, 170, 180]
    frame = rates({"a": [c + 10 for c in counts], "b": counts})
    paired = contrast_frame(frame, Contrasts(test="paired"), (("a", "b"),))
    unpaired = contrast_frame(frame, Contrasts(), (("a", "b"),))
    assert paired["p"].iloc[-1] == pytest.approx(2 / 2**8) and unpaired["p"].iloc[-1] > 0.5


def test_the_default_compares_every_variant_with_the_base():
    study = dataclasses.replace(STUDY, contrasts=Contrasts())
    assert study.reference == "K=8"
    assert study.contrast_pairs == tuple((name, "K=8") for name in study.variants if name != "K=8")


def test_a_plan_says_that_a_design_cannot_conclude():
    (first, second) = design_lines(Contrasts(), 11, 5)
    assert "cannot conclude" in first and "63 seeds" in second
    assert "cannot" not in design_lines(Contrasts(), 6, 5)[0]
    assert design_lines(Contrasts(), 0, 5) == []


@pytest.mark.parametrize(
    ("contrasts", "field"),
    [
        (Contrasts(pairs=(("K=8", "K=3"),)), "contrasts"),
        (Contrasts(reference="base"), "contrasts"),
        (Contrasts(primary="sucess"), "contrasts.primary"),
        (Contrasts(test="signs"), "contrasts.test"),
        (Contrasts(test="paired"), "contrasts.test"),
    ],
)
def test_contrasts_that_cannot_be_tested_are_refused(contrasts, field):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(STUDY, contrasts=contrasts)
    assert info.value.field == f"study recall_quick, {field}"


def test_a_part_of_a_study_keeps_the_contrasts_that_it_still_has():
    part = STUDY.narrowed(seeds=(0, 1), variants=("K=8", "K=2"))
    assert part.contrast_pairs == (("K=8", "K=2"),)
    assert STUDY.narrowed(variants=("none",)).contrast_pairs == ()
