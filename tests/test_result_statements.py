"""Every statement of RESULTS.md's answers, counted again from the committed CSV files without the report's code."""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict

import numpy as np
import pytest
from scipy import stats

from helpers.paths import ROOT
from muvla.stats import wilson
from sweeps.loader import load_study

EXPERIMENTS = ROOT / "experiments"
FOLDERS = {
    "recall_quick": "recall_quick/results",
    "recall_budget": "recall_budget/results",
    "recall_width": "recall_width/results",
    "recall_causality": "recall_causality/results",
    "mikasa_quick": "mikasa_quick/results",
    "recall_causality_mikasa": "recall_causality/results-mikasa",
}
SEVERAL = ("recall_quick",)  # trained for several lengths
NUMBER = r"[+-]\d\.\d\d"


def block_of(name):
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    return text.partition(f"<!-- generated: {name} -->\n")[2].partition(f"<!-- end generated: {name} -->")[0]


def read(name, file):
    with (EXPERIMENTS / FOLDERS[name] / file).open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def length_of(name, line):
    """The training length as the text names it; "" where a study has one."""
    return str(round(float(line["U"]))) if name in SEVERAL else ""


def is_above(line):
    low, _ = wilson(int(line["correct"]), int(line["touched"]))
    return low > max(float(line["chance"]), float(line["best_constant"]))


def sentences(name, start):
    """Sentences of the block that begin so, by the training length that they name."""
    by_length = {}
    for line in block_of(name).splitlines():
        text = line.removeprefix("- ")
        after = re.match(r"After (\d+) updates, ", text)
        text = text[after.end() :] if after else text
        if re.match(start, text):
            inside = re.search(r" after (\d+) updates", text)
            by_length[after[1] if after else inside[1] if inside else ""] = text
    return by_length


def success_by_seed(name):
    rates = defaultdict(dict)
    for line in read(name, "cells.csv"):
        if line["intervention"] == "none":
            rates[length_of(name, line), line["variant"]][int(line["seed"])] = float(line["success_rate"])
    return rates


def permutation(first, second):
    """Two-sided p over all regroupings: twice the smaller tail."""
    test = stats.permutation_test(
        (first, second), lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis), vectorized=True, n_resamples=np.inf
    )
    return test.pvalue


def holm(values):
    order, highest, corrected = sorted(range(len(values)), key=values.__getitem__), 0.0, [0.0] * len(values)
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


@pytest.mark.parametrize("name", ["recall_quick", "recall_budget", "recall_width", "recall_causality"])
def test_contrasts_are_those_of_scipy_on_the_seeds(name):
    rates, texts = success_by_seed(name), sentences(name, "Contrasts in success")
    assert texts
    for length, text in texts.items():
        pattern = rf"`([^`]+)` − `([^`]+)` ({NUMBER}) \[({NUMBER}), ({NUMBER})\] p (\d+(?:\.\d+)?)( \*+)?"
        shown = re.findall(pattern, text)
        assert len(shown) == text.count(" − ")
        pairs = [tuple(np.array(list(rates[length, name].values())) for name in pair[:2]) for pair in shown]
        planned = len(load_study(EXPERIMENTS / name).contrast_pairs)  # a contrast that has not run counts with p = 1
        corrected = holm([*(permutation(first, second) for first, second in pairs), *[1.0] * (planned - len(pairs))])
        for (first, second), (*_, difference, low, high, p, stars), expected in zip(
            pairs, shown, corrected[: len(pairs)], strict=True
        ):
            assert float(difference) == pytest.approx(first.mean() - second.mean(), abs=0.0051)
            assert float(p) == pytest.approx(expected, rel=0.05)
            assert bool(stars) == (expected <= 0.05)
            if first.std() + second.std() > 1e-9:
                limits = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
                assert (float(low), float(high)) == pytest.approx(tuple(limits), abs=0.0051)


@pytest.mark.parametrize("name", ["recall_quick", "recall_causality"])
def test_seeds_that_stay_above_chance_are_counted_by_intervention(name):
    lines = read(name, "cells.csv")
    plain = {
        (length_of(name, line), line["variant"], line["seed"])
        for line in lines
        if line["intervention"] == "none" and is_above(line)
    }
    stays, seeds = defaultdict(list), defaultdict(set)
    for line in lines:
        key = length_of(name, line), line["variant"], line["seed"]
        if line["intervention"] != "none" and key in plain:
            seeds[key[0]].add(key)
            stays[key[0], line["intervention"]].append(is_above(line))
    texts = sentences(name, r"\d+ seeds with interventions")
    assert set(texts) == set(seeds)
    for length, text in texts.items():
        assert text.startswith(f"{len(seeds[length])} seeds with interventions are above chance without them.")
        shown = {}
        for part in text.partition("stay above chance: ")[2].rstrip(".").split("; "):
            share = part.partition(" under ")[0]
            shown |= dict.fromkeys(re.findall("`([^`]+)`", part), share)
        expected = {
            intervention: "all" if all(values) else "none" if not any(values) else f"{sum(values)} of {len(values)}"
            for (of, intervention), values in stays.items()
            if of == length
        }
        assert shown == expected


def text_of(values):
    low, middle, high = (f"{value:.2f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} [{low}, {high}]"


def test_donors_are_followed_as_the_paired_rows_say():
    name = "recall_causality"
    learned = {
        (line["variant"], line["seed"])
        for line in read(name, "cells.csv")
        if line["intervention"] == "none" and is_above(line)
    }
    pairs = [line for line in read(name, "paired.csv") if (line["variant"], line["seed"]) in learned]
    texts = re.findall(r"^- After `([^`]+)`, the donor's target .*$", block_of(name), re.MULTILINE)
    assert len(texts) == 3
    for text in re.findall(r"^- (After `.*)$", block_of(name), re.MULTILINE):
        intervention = re.match("After `([^`]+)`", text)[1]
        lines = [line for line in pairs if line["intervention"] == intervention]
        with_it, without = (text_of([float(line[f"follow_{x}"]) for line in lines]) for x in ("with", "without"))
        assert f"in {with_it} of the episodes of these {len(lines)} seeds, against {without} without it." in text
        shams = re.findall("`([^`]+)`", text.partition("Its sham")[2])
        assert shams
        effects = [abs(float(line["choice_difference"])) for line in pairs if line["intervention"] in shams]
        assert text.endswith(f"by at most {max(effects):.2f}.")


@pytest.mark.parametrize("name", ["recall_quick", "recall_budget", "recall_width", "recall_causality"])
def test_tables_hold_medians_and_ends_over_seeds(name):
    header, _, *rows = [line.strip("| ").split(" | ") for line in block_of(name).splitlines() if line.startswith("|")]
    columns = {"success": "success_rate", "first-touch accuracy given a touch": "choice_rate"}
    rates = defaultdict(list)
    for line in read(name, "cells.csv"):
        for column in columns.values():
            if line["intervention"] == "none" and line[column]:
                rates[length_of(name, line), line["variant"], column].append(float(line[column]))
    donors = defaultdict(list)
    for line in read(name, "paired.csv") if (EXPERIMENTS / FOLDERS[name] / "paired.csv").exists() else ():
        if line["follow_with"]:
            donors[line["intervention"], line["variant"]].append(float(line["follow_with"]))
    checked = 0
    for cells in rows:
        row = dict(zip(header, cells, strict=True))
        for title, text in row.items():
            heading = title.partition(": ")[2] or title
            length = title.removeprefix("U = ").partition(":")[0] if ":" in title else ""
            values = rates.get((length, row["variant"], columns.get(heading)))
            if heading.startswith("donor-following rate under `"):
                followed = donors.get((heading.split("`")[1], row["variant"]))
                assert text == (text_of(followed) if followed else "–"), (row["variant"], title)
            if values:
                assert text == text_of(values), (row["variant"], title)
                checked += 1
    assert checked == len(rates)


def test_verdicts_are_counted_over_predictions_and_variants():
    name = "recall_causality"
    words = {
        (line["prediction"], line["variant"]): line["together"].split(" ")[0] for line in read(name, "verdicts.csv")
    }
    counts = {word: list(words.values()).count(word) for word in ("supported", "refuted", "undecided")}
    assert sum(counts.values()) == len(words)
    predictions = len({prediction for prediction, _ in words})
    texts = ", ".join(f"{count} {word}" for word, count in counts.items())
    (text,) = re.findall(r"^The \d+ predictions .*$", block_of(name), re.MULTILINE)
    assert text.startswith(f"The {predictions} predictions (") and f"give {len(words)} verdicts" in text
    assert text.endswith(f": {texts}.")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_size_of_a_study_is_that_of_its_cells(name):
    plain = [line for line in read(name, "cells.csv") if line["intervention"] == "none"]
    seeds = len({line["seed"] for line in plain})
    (episodes,) = {line["measured"] for line in plain}
    count = "one training seed" if seeds == 1 else f"{seeds} training seeds"
    assert f"Study `{name}`: {count}, {episodes} episodes per cell and condition." in block_of(name)
    assert ("no evidence about memory" in block_of(name)) == (seeds == 1)


def test_a_study_is_called_not_run_where_it_has_no_cells():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- generated: (\w+) -->\n(.*?)<!-- end", text, re.DOTALL)
    for name, block in blocks:
        if "**Not run" in block:
            (folder,) = re.findall(r"\(experiments/([^)]+)/README.md\)", block)
            assert not list((EXPERIMENTS / folder).glob("results*/cells.csv")), name
        elif name != "introduction":
            (data,) = re.findall(r"\[data\]\(([^)]+)\)", block)
            assert (ROOT / data).exists() and data.endswith("cells.csv"), name
