"""Intervals and tests over training seeds, against published values and simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from muvla.stats.aggregates import interquartile_mean, performance_profile, probability_of_improvement
from muvla.stats.hypotheses import holm, permutation_p, seed_bounds, seeds_for_power, smallest_p, welch_bounds
from muvla.stats.means import bootstrap_interval, difference_interval, welch_interval
from muvla.stats.proportions import clopper_pearson, newcombe_unpaired


def test_difference_of_independent_proportions_is_the_published_example():
    # Newcombe 1998, table II, example (a): 56/70 against 48/80
    assert newcombe_unpaired(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_five_of_five_seeds_have_the_exact_interval():
    low, high = clopper_pearson(5, 5)
    assert low == pytest.approx(0.025 ** (1 / 5)) and high == 1


def test_smallest_p_of_five_against_five_seeds_is_two_of_252():
    assert permutation_p([1.0, 0.9, 0.8, 0.95, 1.0], [0.3, 0.2, 0.1, 0.3, 0.4]) == pytest.approx(2 / 252)
    assert smallest_p(5, 5) == pytest.approx(2 / 252) and smallest_p(3, 3) == pytest.approx(0.1)
    assert smallest_p(5, 5, "paired") == pytest.approx(0.0625)  # sign flips of five pairs never reach 0.05
    assert math.isnan(permutation_p([1.0], [0.0, 0.1]))


def test_many_seeds_take_random_rearrangements_that_repeat():
    first, second = np.linspace(0, 1, 12), np.linspace(0.3, 1.3, 12)
    assert permutation_p(first, second) == permutation_p(first, second)
    assert permutation_p(first, second) == pytest.approx(stats.ttest_ind(first, second).pvalue, abs=0.02)


def test_holm_is_the_step_down_of_the_sorted_values_and_passes_over_missing_ones():
    # 0.01·4, 0.03·3, then never less than the value before
    assert holm([0.01, 0.04, 0.03, 0.005])[:4] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.01, math.nan, 0.04])
    assert corrected[0] == pytest.approx(0.02) and math.isnan(corrected[1]) and corrected[2] == pytest.approx(0.04)


def test_welch_agrees_with_scipy_and_a_small_sample_takes_it():
    first, second = [1.0, 0.9, 0.95, 0.7, 1.0], [0.3, 0.5, 0.2, 0.9]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert welch_interval(first, second) == pytest.approx((expected.low, expected.high))
    assert difference_interval(first, second) == welch_interval(first, second)
    assert all(map(math.isnan, welch_interval([1.0], second)))


def test_ten_seeds_take_the_bootstrap_which_resamples_within_tasks():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.6, 0.1, 12), rng.normal(0.4, 0.1, 12)
    assert difference_interval(first, second) == bootstrap_interval([first], [second])
    # Two tasks of different means: within tasks the means are fixed, so the interval has no width.
    constant = [[1.0] * 10, [0.0] * 10]
    assert bootstrap_interval(constant, constant) == (0.0, 0.0)


def test_intervals_of_a_difference_cover_it_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        low, high = welch_interval(rng.normal(0.5, 0.1, 5), rng.normal(0.3, 0.3, 5))
        hits += low <= 0.2 <= high
    assert 0.92 <= hits / 400 <= 0.985


def test_bounds_over_seeds_err_in_five_of_a_hundred_and_episodes_floor_them():
    rng = np.random.default_rng(2)
    wrong = sum(seed_bounds(rng.normal(0, 0.1, 5), [0] * 5).high < 0 for _ in range(600))
    assert 0.03 <= wrong / 600 <= 0.075
    flat = seed_bounds([-0.5, -0.5, -0.5], [0.0025] * 3)
    assert flat.high - flat.value == pytest.approx(stats.t.ppf(0.95, 2) * math.sqrt(0.0025 / 3))
    assert seed_bounds([0.01] * 5, [1e-6] * 5).is_within(0.1) and not seed_bounds([0.12] * 5, [1e-6] * 5).is_within(0.1)


def test_bounds_between_variants_subtract_the_reference():
    bounds = welch_bounds([-0.3, -0.4, -0.35], [-0.3, -0.42, -0.33], [0.001] * 3, [0.001] * 3)
    assert bounds.value == pytest.approx(0) and bounds.low < 0 < bounds.high


def test_seeds_for_power_agree_with_a_simulation():
    seeds = seeds_for_power(0.2, 0.1)
    rng = np.random.default_rng(5)
    found = [stats.ttest_ind(rng.normal(0.2, 0.1, seeds), rng.normal(0, 0.1, seeds)).pvalue < 0.05 for _ in range(600)]
    assert 0.76 <= np.mean(found) <= 0.92
    assert seeds_for_power(0.2, 0.1, error=0.01) > seeds > 2


def test_aggregates_over_tasks_and_seeds():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 100]) == pytest.approx(3.5)
    assert performance_profile([0.2, 0.4, 1.0], [0.3, 0.5]).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert probability_of_improvement([[1, 1], [0, 1]], [[0, 0], [0, 1]]) == pytest.approx((1 + 0.5) / 2)
