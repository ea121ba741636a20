"""Paired differences, and the verdicts of predictions: published numbers, planted effects, and data without any."""

import dataclasses
import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.paired import MARGIN, difference, rate
from analysis.verdicts import (
    NO_GROUND,
    NOT_RUN,
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    over_seeds,
    uses_memory,
    verdict,
)
from helpers.rows import row
from muvla.errors import MuvlaError
from muvla.evaluation.records import acted
from muvla.stats import newcombe
from sweeps.predictions import Prediction

CHANCE = 1 / 3


def rows(choices, targets, donors=None, **changes):
    found = [row(i, int(c), int(t)) for i, (c, t) in enumerate(zip(choices, targets, strict=True))]
    donors = [None] * len(found) if donors is None else donors
    return [dataclasses.replace(r, donor_target=d, **changes) for r, d in zip(found, donors, strict=True)]


def predicted(expected, **changes):
    return Prediction("told", ("K=8",), "zero", expected, **changes)


def test_newcombes_method_10_against_published_values():
    """Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8: Cavo et al. 2012,
    59, 6, 16 and 80 pairs."""
    low, high = newcombe(59, 16, 6, 80, confidence=0.95)
    assert (low, high) == (pytest.approx(-0.1186, abs=5e-5), pytest.approx(-0.0046, abs=5e-5))


@pytest.mark.parametrize(
    "table", [(10, 0, 0, 0), (0, 0, 0, 10), (0, 10, 0, 0), (0, 0, 10, 0), (1, 0, 0, 0), (5, 0, 0, 5)]
)
def test_the_interval_holds_the_difference_also_at_the_edge(table):
    both, first, second, neither = table
    low, high = newcombe(*table)
    value = (second - first) / sum(table)
    assert -1 <= low <= value <= high <= 1
    mirrored = newcombe(both, second, first, neither)
    assert mirrored == (pytest.approx(-high), pytest.approx(-low))


def test_no_pair_has_no_interval():
    assert all(map(math.isnan, newcombe(0, 0, 0, 0)))
    assert difference([], [], "choice").text == "–" and rate([], "choice").text == "–"


def test_pairs_are_the_episodes_that_both_measured_and_touched():
    plain = rows([0, 0, 1, -1, 0], [0, 0, 0, 0, 0])
    other = [dataclasses.replace(r, error="lost") if r.seed == 4 else r for r in rows([0, 1, 0, 0, 0], [0] * 5)]
    choice = difference(plain, other, "choice")
    assert (choice.n, choice.first, choice.second) == (3, 2 / 3, 2 / 3)  # not 3, untouched; not 4, an error
    own = difference(plain, other, "own")
    assert (own.n, own.first, own.second) == (4, 2 / 4, 3 / 4)
    assert difference(plain, other[1:], "own").n == 3


def test_episodes_in_which_nothing_acted_are_no_pair_and_in_no_rate():
    """Neither of the one condition nor of the other; rows that do not tell, as those of a plain run, count."""
    plain = rows([0] * 4, [0] * 4)
    other = [dataclasses.replace(r, fired=n) for r, n in zip(rows([1] * 4, [0] * 4), (0, 1, 2, None), strict=True)]
    assert [r.seed for r in acted(other)] == [1, 2, 3] and acted(plain) == plain
    for first, second, value in ((plain, other, -1), (other, plain, 1)):
        for quantity in ("choice", "own", "success"):
            found = difference(first, second, quantity)
            assert (found.n, found.value) == (3, value)
    assert (rate(other, "choice").n, rate(other, "choice").count) == (3, 0)
    silent = [dataclasses.replace(r, fired=0) for r in other]
    assert acted(silent) == [] and difference(plain, silent, "choice").text == rate(silent, "choice").text == "–"
    given = [dataclasses.replace(r, fired=n, donor_target=1) for r, n in zip(other, (0, 1, 1, 1), strict=True)]
    assert difference(plain, given, "follow").n == 3, "an episode that was given nothing has no donor to follow"


def test_following_is_choosing_the_donors_target_and_is_looked_for_in_the_plain_run_too():
    plain = rows([0, 0, 0, 1], [0] * 4)
    other = rows([1, 1, 0, -1], [0] * 4, donors=[1, 1, 1, None])
    follow = difference(plain, other, "follow")
    assert (follow.n, follow.first, follow.second) == (3, 0, 2 / 3)
    assert (rate(other, "follow").n, rate(other, "follow").count) == (3, 2)


@lru_cache
def simulated(seed, p_plain, p_other, n=200, correlation=0.0):
    """What is looked at of rows of a plain run and of one under an intervention, with planted shares of own target."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(3, size=n)
    drawn = rng.random(n)
    again = np.where(rng.random(n) < correlation, drawn, rng.random(n))
    wrong = (targets + rng.integers(1, 3, size=n)) % 3
    return tuple(
        [
            SimpleNamespace(seed=i, error=None, choice=c, target=t, donor_target=None, fired=None)
            for i, (c, t) in enumerate(zip(np.where(u < p, targets, wrong).tolist(), targets.tolist(), strict=True))
        ]
        for u, p in ((drawn, p_plain), (again, p_other))
    )


def said(one, seed, p_plain, p_other, **changes):
    plain, other = simulated(seed, p_plain, p_other, **changes)
    return verdict(one, plain, plain, other, CHANCE).text


@pytest.mark.parametrize(
    ("expected", "p_plain", "p_other"),
    [
        ("to_chance", 0.97, CHANCE),
        ("lower", 0.97, 0.6),
        ("higher", 0.4, 0.9),
        ("null", 0.97, 0.97),
        ("chance", 0.97, CHANCE),
        ("above_chance", 0.4, 0.8),
    ],
)
def test_planted_effects_are_found(expected, p_plain, p_other):
    found = [said(predicted(expected), seed, p_plain, p_other) for seed in range(40)]
    assert found.count(SUPPORTED) >= 32 and found.count(REFUTED) <= 2


@pytest.mark.parametrize(
    ("expected", "p_plain", "p_other"),
    [
        ("to_chance", 0.97, 0.97),
        ("to_chance", 0.97, 0.6),
        ("lower", 0.97, 0.97),
        ("higher", 0.9, 0.4),
        ("null", 0.97, CHANCE),
        ("chance", 0.4, 0.9),
        ("above_chance", 0.9, 0.1),
        ("to_chance", 0.97, 0.05),
    ],
)
def test_what_is_not_so_is_refuted(expected, p_plain, p_other):
    found = [said(predicted(expected), seed, p_plain, p_other) for seed in range(40)]
    assert found.count(REFUTED) >= 32 and SUPPORTED not in found


@pytest.mark.slow
@pytest.mark.parametrize("p", [CHANCE, 0.6, 0.97])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_without_an_effect_hardly_any_is_found(p, correlation):
    """100 A/A runs; one bound of a 90 % interval errs in 5 of 100, and the sum of the two directions in 10."""
    found = {
        e: [said(predicted(e), s, p, p, correlation=correlation) for s in range(100)]
        for e in ("lower", "higher", "null")
    }
    assert found["lower"].count(SUPPORTED) <= 0.09 * 100 and found["higher"].count(SUPPORTED) <= 0.09 * 100
    assert found["null"].count(REFUTED) <= 0.01 * 100
    # Over five training seeds: none is supported by chance, and refuting "null" takes two.
    for one, mistake in (("lower", SUPPORTED), ("null", REFUTED)):
        studies = [over_seeds(found[one][i : i + 5]) for i in range(0, 100, 5)]
        assert mistake not in studies


def test_the_interval_covers_as_it_says():
    """Of 300 pairs of runs that differ by 0.2, about 270 intervals hold that."""
    held, rng = 0, np.random.default_rng(0)
    for _ in range(300):
        a, b = rng.random((2, 60))
        first, second = a < 0.7, np.where(rng.random(60) < 0.5, a, b) < 0.5
        low, high = newcombe(
            *(int(x.sum()) for x in (first & second, first & ~second, ~first & second, ~first & ~second)),
            confidence=0.90,
        )
        held += low <= -0.2 <= high
    assert 260 <= held <= 290


def test_a_small_drop_is_no_drop():
    """Significant but inside the margin: it is null, and nothing was lowered."""
    plain, other = rows([0] * 1000, [0] * 1000), rows([0] * 980 + [1] * 20, [0] * 1000)
    shift = difference(plain, other, "choice")
    assert shift.high < 0 and shift.low > -MARGIN
    assert verdict(predicted("null"), plain, plain, other, CHANCE).text == SUPPORTED
    assert verdict(predicted("lower"), plain, plain, other, CHANCE).text == REFUTED


def test_a_prediction_speaks_of_the_seeds_that_it_names():
    used, _ = simulated(0, 0.97, 0.97)
    unused, _ = simulated(0, CHANCE, CHANCE)
    assert verdict(predicted("null", where="used"), unused, unused, unused, CHANCE).text == NO_GROUND
    assert verdict(predicted("null", where="unused"), used, used, used, CHANCE).text == NO_GROUND
    assert verdict(predicted("null", where="used"), used, used, used, CHANCE).text == SUPPORTED
    assert verdict(predicted("null", where="used"), used, used, used, None).text == NO_GROUND
    assert verdict(predicted("chance"), used, used, used, None).text == UNDECIDED
    assert verdict(predicted("null"), used, used, [], CHANCE).text == NOT_RUN


def test_always_the_same_place_is_no_memory():
    """The targets of a block: 53, 82 and 65 of 200. Always the most frequent is above 1/3 by its interval."""
    targets = [0] * 53 + [1] * 82 + [2] * 65
    centre, own = rows([1] * 200, targets), rows(targets, targets)
    assert rate(centre, "choice").low > CHANCE
    assert uses_memory(centre, CHANCE) is False and uses_memory(own, CHANCE) is True
    assert verdict(predicted("null", where="used"), centre, centre, centre, CHANCE).text == NO_GROUND
    assert verdict(predicted("null", where="unused"), centre, centre, centre, CHANCE).text == SUPPORTED
    assert verdict(predicted("to_chance"), own, own, centre, CHANCE).text == SUPPORTED
    assert verdict(predicted("above_chance"), own, own, centre, CHANCE).text == REFUTED
    rarest = rows([0] * 200, targets)
    assert verdict(predicted("to_chance"), own, own, rarest, CHANCE).text == SUPPORTED
    # Of those with a touch, other shares: every touch is where the constant choice is right.
    mostly = rows([-1] * 53 + [1] * 82 + [-1] * 45 + [1] * 20, targets)
    assert verdict(predicted("above_chance"), own, own, mostly, CHANCE).text != SUPPORTED


def test_always_the_same_place_follows_no_donor():
    targets, donors = [0] * 100 + [2] * 100, [1] * 82 + [2] * 18 + [0] * 65 + [1] * 35
    own, centre = rows(targets, targets), rows([1] * 200, targets, donors)
    above = predicted("above_chance", quantity="follow")
    assert rate(centre, "follow").low > CHANCE
    assert verdict(above, own, own, centre, CHANCE).text != SUPPORTED
    assert verdict(above, own, own, rows(donors, targets, donors), CHANCE).text == SUPPORTED


def test_too_few_touches_decide_nothing():
    plain, _ = simulated(0, 0.97, 0.97)
    other = rows([-1] * 195 + [0, 1, 2, 0, 1], [r.target for r in plain])
    assert verdict(predicted("to_chance"), plain, plain, other, CHANCE).text == UNDECIDED
    untouched = rows([-1] * 200, [r.target for r in plain])
    for expected in ("null", "lower", "higher", "chance", "to_chance", "above_chance"):
        assert verdict(predicted(expected), plain, plain, untouched, CHANCE).text == UNDECIDED


@pytest.mark.parametrize(
    ("of_seeds", "together"),
    [
        ([SUPPORTED] * 5, SUPPORTED),
        ([SUPPORTED] * 4 + [NO_GROUND], SUPPORTED),
        ([SUPPORTED] * 2 + [NO_GROUND] * 3, SUPPORTED),
        ([SUPPORTED] * 4 + [UNDECIDED], UNDECIDED),
        ([SUPPORTED] * 4 + [REFUTED], UNDECIDED),
        ([SUPPORTED] * 3 + [REFUTED] * 2, REFUTED),
        ([REFUTED], "undecided (1 of 1 seeds has ground)"),
        ([SUPPORTED] + [NO_GROUND] * 4, "undecided (1 of 5 seeds has ground)"),
        ([REFUTED] + [NO_GROUND] * 4, "undecided (1 of 5 seeds has ground)"),
        ([NO_GROUND] * 5, "undecided (0 of 5 seeds have ground)"),
        ([SUPPORTED] * 4 + [NOT_RUN], "undecided (4 of 5 seeds run)"),
        ([REFUTED] * 4 + [NOT_RUN], "undecided (4 of 5 seeds run)"),
        ([], "undecided (0 of 0 seeds have ground)"),
    ],
)
def test_how_seeds_combine(of_seeds, together):
    assert over_seeds(of_seeds) == together


@pytest.mark.parametrize("changes", [{"expected": "best"}, {"quantity": "touch"}, {"where": "often"}, {"variants": ()}])
def test_a_prediction_in_other_words_is_refused(changes):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(predicted("null"), **changes)
    assert next(iter(changes)) in info.value.field
