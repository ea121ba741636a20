"""Confidence intervals of proportions and means.

Every interval describes one trained policy: episodes are never pooled over training seeds.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t

CONFIDENCE = 0.95


@cache  # a report asks for the same counts again and again
def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927), 209-212.

    Args:
        successes: episodes with the outcome.
        n: all episodes.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit; (nan, nan) for n = 0.
    """
    if n == 0:
        return math.nan, math.nan
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def newcombe(both: int, first: int, second: int, neither: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a paired difference: the proportion in the second condition minus that in the first.

    Source: method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", Statistics in Medicine 17 (1998), 2635-2650. The method squares and adds the Wilson limits of
    the two proportions, and subtracts their correlation with a continuity correction.

    Args:
        both: pairs with the outcome in both conditions.
        first: pairs with the outcome in the first condition alone.
        second: pairs with the outcome in the second condition alone.
        neither: pairs without the outcome.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit, within -1 to 1; (nan, nan) without any pair.
    """
    n = both + first + second + neither
    if n == 0:
        return math.nan, math.nan
    p, q = (both + first) / n, (both + second) / n
    (p_low, p_high), (q_low, q_high) = wilson(both + first, n, confidence), wilson(both + second, n, confidence)
    margins = math.prod((both + first, second + neither, both + second, first + neither))
    product = both * neither - first * second
    corrected = max(product - n / 2, 0) if product > 0 else product
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return q - p - reach(q - q_low, p_high - p), q - p + reach(q_high - q, p - p_low)


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
    half = student_t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    return mean - half, mean + half
