"""Every kind of verdict, every test and every interval that a report prints has its committed calibration."""

import inspect
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from analysis.verdicts import DISTURBED, KINDS
from experiments.calibration import contrasts, simulate, splits, summary, times
from helpers.paths import ROOT
from muvla.stats import hypotheses, means, proportions
from muvla.stats.hypotheses import Pairing, permutation_p, permutation_ps, smallest_p
from sweeps.contrasts import PRIMARY, RATES
from sweeps.time_to_learn import METRIC

RESULTS = ROOT / "experiments" / "calibration" / "results"
MOST_WRONG = 0.07  # of studies, at a nominal 0.05


def read(name: str) -> pd.DataFrame:
    """A committed file of the calibration, in which "null" is a kind."""
    return pd.read_csv(RESULTS / f"{name}simulated.csv", keep_default_na=False, na_values=[""])


def test_every_kind_of_verdict_is_calibrated():
    frame = read("")
    assert set(frame["kind"]) == set(KINDS)
    assert frame["studies"].min() >= 2000 and frame["wrong_share"].max() <= MOST_WRONG
    planted = frame.groupby("kind")["planted"].nunique()
    assert (planted == len(simulate.PLANTED)).all(), "no effect, and an effect at the margin"


def test_every_kind_of_verdict_against_a_reference_is_calibrated_where_success_falls_without_memory():
    frame = read("references-")
    assert set(frame["kind"]) == set(simulate.AGAINST_REFERENCE) == {"null", "lower", "higher"}
    assert set(DISTURBED) == {"own", "success", "touch"}
    assert set(frame["distribution"]) >= {"at chance"} and frame["studies"].min() >= 2000
    assert frame["wrong_share"].max() <= MOST_WRONG


@pytest.mark.parametrize("statement", ["contrast", *(kind for kind in KINDS if kind != "to_chance")])
def test_every_kind_of_verdict_holds_on_real_training_seeds(statement):
    """A line rests on 200 splits of the same seeds, so all lines of a kind are summed; `to_chance` is two kinds."""
    frame = pd.read_csv(RESULTS / splits.NAME, keep_default_na=False, na_values=[""])
    lines = frame[frame["statement"] == statement]
    assert set(lines["seeds"]) == set(splits.SIZES) and set(lines["variant"]) >= {"dummy", "K=1", "K=2"}
    sums = lines.groupby(["against", "planted", "seeds"])[["wrong", "splits"]].sum()
    assert len(sums) and (sums["wrong"] <= MOST_WRONG * sums["splits"]).all(), sums
    planted = {"no effect"} if statement == "contrast" else {"no effect", "at the margin"}
    assert set(lines["planted"]) == planted


def test_every_test_of_contrasts_is_calibrated():
    frame = read("contrasts-")
    assert set(frame["test"]) == {*get_args(Pairing), "stratified", "fisher"}
    assert set(frame["seeds"]) == {3, 5, 10, 20} and set(frame["difference"]) == {0.0, 0.1, 0.2, 0.5}
    none = frame[frame["difference"] == 0]
    assert none["studies"].min() >= 2000 and none["significant"].max() <= MOST_WRONG
    for line in none[none["test"] != "fisher"].itertuples():
        assert line.attainable <= 0.05 and line.significant <= line.attainable + 0.02


def test_every_metric_of_contrasts_has_a_calibrated_test():
    assert set(PRIMARY) == {*RATES, METRIC}, "rates by the tests above, times by the log-rank test"
    frame = read("times-")
    assert set(frame["test"]) == {times.TEST, times.NORMAL} and set(frame["distribution"]) == set(times.DISTRIBUTIONS)
    assert set(frame["seeds"]) == {3, 5, 10, 20} and set(frame["factor"]) == set(times.FACTORS)
    none = frame[(frame["factor"] == 1) & (frame["test"] == times.TEST)]
    assert none["studies"].min() >= 2000 and none["significant"].max() <= MOST_WRONG
    assert (none["significant"] <= none["attainable"] + 0.02).all()
    approximated = frame[frame["test"] == times.NORMAL]
    assert approximated["significant"].max() > none["significant"].max(), "the reason why a report counts regroupings"


def test_every_interval_that_a_report_prints_has_its_coverage():
    printed = set()
    for module in (means, proportions, hypotheses):
        for name, function in inspect.getmembers(module, callable):
            limits = name.endswith(("_interval", "_bounds")) or name in ("wilson", "newcombe", "clopper_pearson")
            if getattr(function, "__module__", "") == module.__name__ and (limits or name == "newcombe_unpaired"):
                printed.add(name)
    frame = read("intervals-")
    # `difference_interval` is one of two others, by the number of seeds.
    assert set(frame["interval"]) == printed - {"difference_interval"}
    assert frame["studies"].min() >= 2000 and frame["coverage"].between(0, 1).all()
    short = frame[frame["coverage"] < frame["nominal"] - 0.06]
    assert short.empty, short


def test_the_sentences_on_simulated_studies_are_those_of_the_committed_files():
    text = (RESULTS / summary.NAME).read_text(encoding="utf-8")
    assert text == summary.sentences(RESULTS)
    verdicts, contrasts_, times_ = read(""), read("contrasts-"), read("times-")
    for frame in (verdicts, read("references-")):
        assert f"{frame['wrong_share'].max():.3f}" in text
    assert f"{contrasts_[contrasts_['difference'] == 0]['significant'].max():.3f}" in text
    assert f"{times_[(times_['factor'] == 1) & (times_['test'] == times.TEST)]['significant'].max():.3f}" in text
    block = (ROOT / "RESULTS.md").read_text(encoding="utf-8").partition("<!-- generated: calibration -->")[2]
    assert text.strip() in block.partition("<!-- end")[0]


@pytest.mark.parametrize(("n", "pairing"), [(5, "unpaired"), (12, "unpaired"), (8, "paired"), (15, "paired")])
def test_many_studies_at_once_get_the_p_of_each(n, pairing):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 20, (2, 6, n)) / 20
    together = permutation_ps(first, second, pairing)
    assert list(together) == [permutation_p(a, b, pairing) for a, b in zip(first, second, strict=True)]
    assert together.min() >= smallest_p(n, n, pairing)


def test_the_simulations_run(monkeypatch):
    """With a few studies each; the committed files have 2,000."""
    monkeypatch.setattr(contrasts, "SEEDS", (3, 10))
    frame = contrasts.contrast_rates(20)
    assert (
        set(frame["test"]) == {"unpaired", "paired", "stratified", "fisher"}
        and frame["significant"].between(0, 1).all()
    )
    monkeypatch.setattr(times, "SEEDS", (3,))
    assert times.time_rates(20)["significant"].between(0, 1).all()
    assert set(simulate.reference_rates(5)["wrong"]) == {"supported", "refuted"}
