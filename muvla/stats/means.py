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
    return stratified_welch_interval([first], [second], confidence)


def stratified_welch_interval(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], confidence: float = CONFIDENCE
):
    """Interval of the mean over tasks of mean(first) − mean(second); Welch's where there is one task.

    The variances of all groups add up, with the degrees of freedom of F. E. Satterthwaite, "An approximate distribution
    of estimates of variance components", Biometrics Bulletin 2 (1946), 110-114.

    Args:
        first: scores of a variant, a sequence of training seeds per task.
        second: scores of the other variant, with the same tasks.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit, as of `welch_interval`.
    """
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in zip(first, second, strict=True)]
    groups = [group for pair in pairs for group in pair]
    if not groups or min(map(len, groups)) < 2:
        return math.nan, math.nan
    difference = float(np.mean([a.mean() - b.mean() for a, b in pairs]))
    parts = [group.var(ddof=1) / len(group) / len(pairs) ** 2 for group in groups]
    if sum(parts) == 0:
        return difference, difference
    freedom = sum(parts) ** 2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
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
