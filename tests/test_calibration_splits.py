"""Calibration on real training seeds: splits of one variant, planted effects, and what is equal by construction."""

import dataclasses

import numpy as np
import pytest

from analysis.paired import MARGIN
from analysis.verdicts import KINDS, LOG_MARGIN
from experiments.calibration import splits
from helpers.rows import records, row

SEEDS, SPLITS = 10, 40
CLAIMS = {(claim.against, claim.quantity, claim.kind): claim for claim in splits.claims(1 / 3)}


def outcomes(rng, accuracy, kind, targets):
    wrong = (targets + rng.integers(1, 3, size=len(targets))) % 3
    choices = np.where(rng.random(len(targets)) < accuracy, targets, wrong)
    return [row(i, int(c), int(t), kind=kind) for i, (c, t) in enumerate(zip(choices, targets, strict=True))]


def wrong_splits(base, plain, under, episodes=120):
    """Wrong splits of ten seeds of `K=1` with these accuracies, by the names of a claim."""
    cells = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        targets = rng.integers(3, size=episodes)
        kept = outcomes(rng, plain, "none", targets)
        changed = {name: outcomes(rng, under, name, targets) for name in ("zero", "transplant")}
        rows = {("p@1", name): kept for name in ("none", "transplant_same", "permute_tokens(identity)")}
        rows["p@1", "drop"] = kept[::-1]  # episodes end in another order
        rows |= {("p@1", name): changed[name] for name in changed}
        cells.append(dataclasses.replace(records(base, "K=1", {}, seed, 1, 0, 0), rows=rows))
    frame = splits.split_rates(cells, SPLITS)
    return frame.set_index(["statement", "against", "quantity", "intervention", "planted"])["wrong"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(splits, "SIZES", (5,))


def test_seeds_without_memory_are_seldom_accused_and_seeds_with_memory_always(base, monkeypatch):
    claim = ("lower", "no intervention", "choice", "zero", "no effect")
    unused, used = wrong_splits(base, 1 / 3, 1 / 3), wrong_splits(base, 0.9, 0.5)
    assert unused[claim] <= SPLITS / 5 and claim not in used, "seeds that use their memory may fall"
    between = used[used.index.get_level_values("against") == "other seeds"].xs("no effect", level="planted")
    assert set(between.index.get_level_values("statement")) == {"contrast", "null", "lower", "higher"}
    assert (between <= SPLITS / 4).all(), "both groups have one variant"
    monkeypatch.setattr(splits, "uses_memory", lambda plain, chance: False)
    used = wrong_splits(base, 0.9, 0.5)
    assert used[claim] == used["lower", "sham", "own", "transplant", "no effect"] == SPLITS


def test_every_kind_of_verdict_has_its_splits_and_what_is_equal_by_construction_has_none(base):
    counted = wrong_splits(base, 1 / 3, 1 / 3, episodes=30)
    assert set(counted.index.get_level_values("statement")) == {"contrast", *KINDS} - {"to_chance"}
    assert set(counted.index.get_level_values("intervention")) == {"none", "zero", "transplant"}


def test_an_effect_is_planted_on_the_mean_over_targets():
    """A policy that always takes one place is right in all episodes of one target."""
    targets = np.repeat([0, 1, 2], [600, 1500, 900])
    habit = [row(i, 1, int(t)) for i, t in enumerate(targets)]
    claim = CLAIMS["no intervention", "choice", "null"]
    assert claim.effect(*splits.plant(claim, (habit, habit), 0, 0)).low == pytest.approx(-MARGIN, abs=0.02)


@pytest.mark.parametrize(("against", "quantity", "kind"), CLAIMS)
def test_a_planted_effect_has_the_size_of_the_margin(against, quantity, kind):
    claim = CLAIMS[against, quantity, kind]
    rng = np.random.default_rng(0)
    targets = rng.integers(3, size=3000)
    plain = outcomes(rng, 0.6, "none", targets)
    level = outcomes(rng, 1 / 3, "none", targets)
    pair = (level, level) if against == "chance" else (plain, plain)
    effect = claim.effect(*splits.plant(claim, pair, 0, 0))
    if claim.is_ratio:
        expected = LOG_MARGIN if kind == "higher" else -LOG_MARGIN
    else:
        expected = MARGIN if kind == "higher" or against == "chance" else -MARGIN
    assert effect.low == pytest.approx(expected, abs=0.03) and claim.effect(*pair).low == pytest.approx(0, abs=0.03)
