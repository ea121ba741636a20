"""Aggregates over tasks and training seeds.

Source: R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def interquartile_mean(scores: Any, axis: int | None = None) -> Any:
    """Mean of the middle half of all scores of all tasks and training seeds (IQM)."""
    return stats.trim_mean(scores, 0.25, axis=axis)


def performance_profile(scores: Sequence[float], thresholds: Sequence[float]) -> np.ndarray:
    """Share of scores above each threshold, (thresholds,)."""
    return (np.asarray(scores, float)[:, None] > np.asarray(thresholds, float)).mean(axis=0)


def probability_of_improvement(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """P(a seed of the first variant beats a seed of the second), averaged over tasks; a tie counts half.

    Args:
        first: scores of a variant, a sequence of training seeds per task.
        second: scores of the other variant, with the same tasks.
    """
    shares = []
    for task, other in zip(first, second, strict=True):
        result = stats.mannwhitneyu(task, other, method="asymptotic")
        shares.append(result.statistic / (len(task) * len(other)))
    return float(np.mean(shares))
