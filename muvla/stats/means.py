"""Confidence intervals of means, and of differences of means over training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from muvla.stats.proportions import CONFIDENCE

BOOTSTRAP_SEEDS = 10  # seeds of a variant from which the bootstrap replaces Welch's interval
RESAMPLES = 10_000


def student_interval(mean: Any, spread: Any, n: Any, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """Interval of a mean by Student's t distribution.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908), 1-25.

    Args:
        mean: sample mean; a number, or an array or series with an entry per sample, as the next two.
        spread: sample standard deviation, with n − 1 in the denominator.
        n: observations.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit, in the form of `mean`; NaN for n = 1.
    """
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    return mean - half, mean + half


def welch_interval(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE):
    """Interval of mean(first) − mean(second) for independent samples of unequal variance.

    Source: B. L. Welch, "The generalization of Student's problem when several different population variances are
    involved", Biometrika 34 (1947), 28-35.

    Returns:
        The lower and the upper limit; (nan, nan) where a sample has fewer than two values. Two constant samples give
        the difference itself twice.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if min(len(first), len(second)) < 2:
        return math.nan, math.nan
    difference = float(first.mean() - second.mean())
    parts = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    if sum(parts) == 0:
        return difference, difference
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(sum(parts)))
    return difference - half, difference + half


def bootstrap_interval(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    statistic: Any = np.mean,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile interval of statistic(first) − statistic(second), with seeds resampled within every task.

    Source: the stratified bootstrap of R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical
    precipice", NeurIPS 2021.

    Args:
        first: scores of a variant, a sequence of training seeds per task.
        second: scores of the other variant, with the same tasks.
        statistic: maps scores (resamples, values) and `axis=-1` to one number per resample.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit.
    """
    rng = np.random.default_rng(0)
    resampled = []
    for group in (first, second):
        tasks = [np.asarray(scores, float) for scores in group]
        drawn = [scores[rng.integers(len(scores), size=(RESAMPLES, len(scores)))] for scores in tasks]
        resampled.append(statistic(np.concatenate(drawn, axis=1), axis=-1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled[0] - resampled[1], [tail, 1 - tail])
    return float(low), float(high)


def difference_interval(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE):
    """Interval of a difference of means over seeds: Welch's below BOOTSTRAP_SEEDS seeds, the bootstrap from there."""
    if min(len(first), len(second)) < BOOTSTRAP_SEEDS:
        return welch_interval(first, second, confidence)
    return bootstrap_interval([first], [second], np.mean, confidence)
