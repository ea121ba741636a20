"""Confidence intervals of proportions.

A claim about one trained policy counts episodes; a claim about a variant counts training seeds.
"""

from __future__ import annotations

import math
from functools import cache

from scipy.stats import binomtest

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


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact interval of a proportion, for the few training seeds of a variant.

    Source: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26 (1934), 404-413.

    Args:
        successes: seeds with the outcome.
        n: all seeds.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit; (nan, nan) for n = 0.
    """
    if n == 0:
        return math.nan, math.nan
    interval = binomtest(successes, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def newcombe_unpaired(
    successes: int, n: int, other_successes: int, other_n: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the difference of two independent proportions: the first minus the other.

    Source: method 10 of R. G. Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998), 873-890.

    Args:
        successes: seeds with the outcome in the first group.
        n: all seeds of the first group.
        other_successes: seeds with the outcome in the other group.
        other_n: all seeds of the other group.
        confidence: two-sided coverage, 0 to 1.

    Returns:
        The lower and the upper limit; (nan, nan) where a group is empty.
    """
    if n == 0 or other_n == 0:
        return math.nan, math.nan
    p, q = successes / n, other_successes / other_n
    (p_low, p_high), (q_low, q_high) = wilson(successes, n, confidence), wilson(other_successes, other_n, confidence)
    return p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)
