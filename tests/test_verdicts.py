"""Verdicts over training seeds: planted effects, habits without memory, lost touches, and real wrong verdicts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis.effects import choice_difference, choice_level, difference_of, log_success_ratio
from analysis.verdicts import (
    EQUIVALENCE_SEEDS,
    KINDS,
    LEAST_SEEDS,
    NO_GROUND,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Rows,
    over_seeds,
    uses_memory,
    verdict,
    verdict_frame,
    verdict_table,
)
from experiments.calibration.simulate import seed_effect
from helpers.paths import ROOT
from helpers.rows import records, row
from muvla.config import dummy, tbptt
from muvla.errors import MuvlaError
from sweeps.predictions import Prediction

CHANCE = 1 / 3
UNEVEN = np.repeat([0, 1, 2], [53, 82, 65])  # the targets of a committed block


def rows(choices, targets, donors=None):
    donors = [None] * len(choices) if donors is None else donors
    return [
        dataclasses.replace(row(i, int(c), int(t)), donor_target=d)
        for i, (c, t, d) in enumerate(zip(choices, targets, donors, strict=True))
    ]


def predicted(expected, **changes):
    return Prediction("a statement", ("K=8",), "zero", expected, **changes)


def simulated(rng, p_plain, p_other, n=200, lost=0.0):
    """Rows without and with an intervention: shares of the own target, and a share of touches that is lost."""
    targets = rng.integers(3, size=n)
    wrong = (targets + rng.integers(1, 3, size=n)) % 3
    plain, other = (np.where(rng.random(n) < p, targets, wrong) for p in (p_plain, p_other))
    other = np.where(rng.random(n) < lost, -1, other)
    plain = rows(plain, targets)
    return Rows(plain, plain, rows(other, targets), CHANCE)


def word(prediction, seeds, references=None):
    return verdict(prediction, seeds, references).text.split(" ")[0]


PLANTED = {
    "to_chance": (0.97, CHANCE),
    "lower": (0.97, 0.6),
    "higher": (0.4, 0.9),
    "null": (0.97, 0.97),
    "chance": (0.97, CHANCE),
    "above_chance": (0.4, 0.8),
}
CONTRARY = {
    "to_chance": (0.97, 0.6),
    "lower": (0.97, 0.97),
    "higher": (0.9, 0.4),
    "null": (0.97, CHANCE),
    "chance": (0.4, 0.9),
    "above_chance": (0.9, 0.1),
}


@pytest.mark.parametrize("expected", KINDS)
def test_planted_effects_are_supported_and_their_contrary_is_refuted(expected):
    rng = np.random.default_rng(0)
    for planted, wanted in ((PLANTED[expected], SUPPORTED), (CONTRARY[expected], REFUTED)):
        words = [word(predicted(expected), [simulated(rng, *planted) for _ in range(5)]) for _ in range(3)]
        assert words == [wanted] * 3, planted


@pytest.mark.parametrize(("expected", "mean"), [("lower", -0.1), ("above_chance", 0.1), ("null", 0.0)])
def test_more_seeds_make_a_true_statement_easier_to_support(expected, mean):
    rng = np.random.default_rng(1)
    supported = {}
    for seeds in (5, 15):
        studies = [[seed_effect(expected, mean, "spread", rng) for _ in range(seeds)] for _ in range(30)]
        supported[seeds] = sum(over_seeds(effects, expected).text == SUPPORTED for effects in studies)
    assert supported[15] > supported[5] and supported[15] >= 24, supported


def test_three_seeds_tell_a_direction_and_no_absence():
    rng = np.random.default_rng(6)
    assert word(predicted("lower"), [simulated(rng, 0.97, 0.3) for _ in range(3)]) == SUPPORTED
    equal = [simulated(rng, 0.97, 0.97) for _ in range(EQUIVALENCE_SEEDS)]
    assert word(predicted("null"), equal) == SUPPORTED and word(predicted("lower"), equal) == REFUTED
    assert word(predicted("null"), equal[:-1]) == word(predicted("lower"), equal[:-1]) == UNDECIDED


def test_a_habit_that_moves_to_another_place_is_no_effect_of_memory():
    """Always place 0 before, always place 1 under the intervention: 53 of 200 right, then 82 of 200."""
    seed = Rows(*[rows(np.zeros(200), UNEVEN)] * 2, rows(np.ones(200), UNEVEN), CHANCE)
    assert choice_difference(seed.plain, seed.under).low == pytest.approx(0)
    assert word(predicted("null"), [seed] * 5) == SUPPORTED
    assert word(predicted("higher"), [seed] * 5) == word(predicted("above_chance"), [seed] * 5) == REFUTED
    assert word(predicted("chance"), [seed] * 5) == SUPPORTED


def test_always_the_same_place_is_no_memory():
    centre, right = rows(np.ones(200), UNEVEN), rows(UNEVEN, UNEVEN)
    assert uses_memory(centre, CHANCE) is False and uses_memory(right, CHANCE) is True
    assert uses_memory(right, None) is None
    assert choice_level(centre, centre, CHANCE).low == pytest.approx(0)


def test_a_block_with_fewer_targets_than_places_has_a_higher_chance():
    two = np.repeat([0, 1], 50)
    assert choice_level(rows(np.zeros(100), two), rows(np.zeros(100), two), CHANCE).low == pytest.approx(0)


def counted(both, lost_right, lost_wrong, gained):
    """Plain and intervened rows from counts: pairs (right without, right with), and touches of one condition alone."""
    right = [pair for pair, count in both.items() for _ in range(count)]
    right += [(True, None)] * lost_right + [(False, None)] * lost_wrong
    right += [(None, True)] * gained[0] + [(None, False)] * gained[1]
    targets = [i % 3 for i in range(len(right))]
    choices = [
        [
            -1 if pair[i] is None else target if pair[i] else (target + 1) % 3
            for pair, target in zip(right, targets, strict=True)
        ]
        for i in (0, 1)
    ]
    return rows(choices[0], targets), rows(choices[1], targets)


def test_accuracy_on_the_episodes_that_still_touch_is_no_null_effect():
    """Real counts: 72 of 137 right, then 32 of 95, with 50 touches lost, 39 of them right; success 0.36 to 0.16.

    The 87 pairs that touch in both have 33 and 32 right: "null" was supported and "lower" refuted.
    """
    plain, other = counted({(1, 1): 30, (1, 0): 3, (0, 1): 2, (0, 0): 52}, 39, 11, (0, 8))
    assert sum(r.choice == r.target for r in plain) == 72 and sum(r.choice != -1 for r in plain) == 137
    assert sum(r.choice == r.target for r in other) == 32 and sum(r.choice != -1 for r in other) == 95
    effect = choice_difference(plain, other)
    assert effect.low < -0.3 and effect.high > 0
    seeds = [Rows(plain, plain, other, CHANCE)] * 5
    for expected in ("null", "lower", "to_chance"):
        assert word(predicted(expected), seeds) == UNDECIDED


def test_noise_lowers_success_is_not_supported_where_no_memory_is_used():
    """A policy at chance that loses a fifth of its touches under noise, beside a dummy that loses as many."""
    rng = np.random.default_rng(2)
    seeds = dummies = [simulated(rng, CHANCE, CHANCE, lost=0.2) for _ in range(5)]
    for quantity in ("success", "own", "touch"):
        assert word(predicted("lower", quantity=quantity), seeds, dummies) != SUPPORTED
        assert verdict(predicted("lower", quantity=quantity), seeds).text.startswith("undecided (no reference")
    using = [simulated(rng, 0.97, CHANCE, lost=0.2) for _ in range(5)]
    assert word(predicted("lower", quantity="success"), using, dummies) == SUPPORTED
    more = [simulated(rng, CHANCE, CHANCE, lost=0.6) for _ in range(5)]
    assert word(predicted("lower", quantity="touch"), more, dummies) == SUPPORTED


def test_against_its_sham_a_success_needs_no_reference():
    rng = np.random.default_rng(3)
    seeds = [simulated(rng, 0.97, 0.5) for _ in range(4)]
    assert word(predicted("lower", quantity="success", versus="transplant_same"), seeds) == SUPPORTED


def test_always_the_same_place_follows_no_donor():
    targets, donors = np.repeat([0, 2], 100), np.repeat([1, 2, 0, 1], [82, 18, 65, 35]).tolist()
    plain, centre = rows(targets, targets), rows(np.ones(200), targets, donors)
    above = predicted("above_chance", quantity="follow")
    assert word(above, [Rows(plain, plain, centre, CHANCE)] * 5) == REFUTED
    assert word(above, [Rows(plain, plain, rows(donors, targets, donors), CHANCE)] * 5) == SUPPORTED


def test_few_seeds_and_few_touches_decide_nothing():
    rng = np.random.default_rng(4)
    seed = simulated(rng, 0.97, CHANCE)
    assert word(predicted("to_chance"), [seed] * (LEAST_SEEDS - 1)) == UNDECIDED
    untouched = dataclasses.replace(seed, under=rows(np.full(200, -1), [r.target for r in seed.plain]))
    for expected in KINDS:
        assert word(predicted(expected), [untouched] * 5) == UNDECIDED
    few = simulated(rng, 1.0, 1.0, n=6)
    assert word(predicted("null"), [few] * 5) == UNDECIDED
    missing = dataclasses.replace(seed, under=[])
    assert verdict(predicted("null"), [seed] * 4 + [missing]).text == "undecided (4 of 5 seeds run)"


def test_a_prediction_speaks_of_the_seeds_that_it_names():
    rng = np.random.default_rng(5)
    used, unused = simulated(rng, 0.97, 0.97), simulated(rng, CHANCE, CHANCE)
    assert word(predicted("null", where="used"), [used] * 5 + [unused]) == SUPPORTED
    assert "1 of 6 seeds has ground" in verdict(predicted("null", where="unused"), [used] * 5 + [unused]).text
    no_chance = [dataclasses.replace(used, chance=None)] * 5
    assert word(predicted("chance"), no_chance) == UNDECIDED


def test_log_ratio_compares_shares_and_survives_zero():
    plain, other = rows([0] * 100, [0] * 100), rows([0] * 50 + [-1] * 50, [0] * 100)
    assert log_success_ratio(plain, other, "own").low == pytest.approx(np.log(50.5 / 100.5))
    assert log_success_ratio(plain, rows([-1] * 100, [0] * 100), "own").low < -5
    assert difference_of(plain, other, "touch").low == -0.5


def test_a_report_names_the_effect_of_every_seed_and_the_reference(base):
    cells = [records(base, "K=8", tbptt(2, 4), seed, 18, 1, 1) for seed in range(3)]
    cells += [records(base, "dummy", dummy(4), seed, 7, 12, 1) for seed in range(3)]
    predictions = [predicted("null"), predicted("lower", quantity="success"), predicted("null", where="used")]
    frame = verdict_frame(cells, predictions)
    assert list(frame["seed"]) == [0, 1, 2] * 3 and set(frame["variant"]) == {"K=8"}
    assert list(frame["reference"].dropna().unique()) == ["dummy"]
    assert (frame[frame["prediction"] == 3]["effect"] == NO_GROUND).all()
    table = verdict_table(frame)
    assert isinstance(table, pd.DataFrame) and table.iloc[0]["seed 1"].startswith("+0.00")


@pytest.mark.parametrize("changes", [{"expected": "best"}, {"quantity": "rate"}, {"where": "often"}, {"variants": ()}])
def test_a_prediction_in_other_words_is_refused(changes):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(predicted("null"), **changes)
    assert next(iter(changes)) in info.value.field


def test_every_kind_of_verdict_has_its_calibration():
    table = pd.read_csv(ROOT / "experiments/calibration/results/simulated.csv", keep_default_na=False)
    assert set(KINDS) <= set(table["kind"])
    assert (table["wrong_share"] <= 0.07).all() and (table["studies"] >= 2000).all()
