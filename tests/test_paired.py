"""Paired differences of one trained policy: published numbers, and which episodes form a pair."""

import dataclasses
import math

import numpy as np
import pytest

from analysis.paired import difference, rate
from helpers.rows import row
from muvla.evaluation.records import acted
from muvla.stats import newcombe


def rows(choices, targets, donors=None, **changes):
    found = [row(i, int(c), int(t)) for i, (c, t) in enumerate(zip(choices, targets, strict=True))]
    donors = [None] * len(found) if donors is None else donors
    return [dataclasses.replace(r, donor_target=d, **changes) for r, d in zip(found, donors, strict=True)]


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
