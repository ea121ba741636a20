"""Intervals. Episodes are never pooled over training seeds: an interval speaks of one trained policy."""

from __future__ import annotations

from functools import cache

from scipy.stats import binomtest

CONFIDENCE = 0.95


@cache  # a report asks for the same counts again and again
def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion; (nan, nan) for n = 0."""
    if n == 0:
        return float("nan"), float("nan")
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
