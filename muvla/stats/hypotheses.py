"""Tests over training seeds: permutations, one-sided and equivalence tests, and Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import stats

EXACT = 20_000  # rearrangements up to which the permutation test counts all of them
RESAMPLES = 20_000  # random rearrangements beyond
TIES = 1e-12  # relative difference of two means that counts as a tie

Pairing = Literal["unpaired", "paired"]
Times = tuple[Sequence[float], Sequence[bool]]


def rearrangements(n: int, other: int, pairing: Pairing = "unpaired") -> int:
    """Number of equally likely arrangements under no effect: groupings of all seeds, or signs of all pairs."""
    return 2**n if pairing == "paired" else math.comb(n + other, n)


def smallest_p(n: int, other: int, pairing: Pairing = "unpaired") -> float:
    """Smallest two-sided p of `permutation_p` for n and `other` seeds: 2/252 for five against five."""
    count = rearrangements(n, other, pairing)
    return min(1.0, 2 / (count if count <= EXACT else RESAMPLES + 1))


def permutation_p(first: Sequence[float], second: Sequence[float], pairing: Pairing = "unpaired") -> float:
    """Two-sided p of the permutation test of a difference of means.

    Source: B. Phipson and G. K. Smyth, "Permutation p-values should never be zero", Statistical Applications in
    Genetics and Molecular Biology 9 (2010), for random rearrangements; all rearrangements are counted up to EXACT.

    Args:
        first: a value per training seed.
        second: a value per training seed of the other variant; in the order of `first` where paired.
        pairing: `unpaired` regroups the seeds; `paired` exchanges the two values of a seed.

    Returns:
        p, at least `smallest_p`; nan where a group has fewer than two seeds.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if min(len(first), len(second)) < 2:
        return math.nan
    return float(permutation_ps(first[None], second[None], pairing)[0])


def permutation_ps(first: np.ndarray, second: np.ndarray, pairing: Pairing = "unpaired") -> np.ndarray:
    """`permutation_p` of many studies at once, with one set of rearrangements.

    Args:
        first: (studies, n) a value per training seed.
        second: (studies, m) the same of the other variant; m = n where paired.
        pairing: as in `permutation_p`.

    Returns:
        (studies,) p.
    """
    n, other = first.shape[1], second.shape[1]
    weights, exact = _weights(n, other, pairing)
    values = first - second if pairing == "paired" else np.concatenate([first, second], axis=1)
    observed = first.mean(axis=1) - second.mean(axis=1)
    margin = TIES * np.abs(values).max(axis=1)  # equal differences count as equal in spite of rounding
    return _two_sided(weights @ values.T, observed, margin, exact)


def stratified_permutation_p(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Two-sided p of the permutation test of a difference of means over tasks; seeds are regrouped within their task.

    So tasks of different difficulty do not blur the difference. Source: F. Pesarin and L. Salmaso, "Permutation Tests
    for Complex Data", Wiley 2010, section 1.9 (stratified permutations); RESAMPLES random ones, as `permutation_p`.

    Args:
        first: values of a variant, a sequence of training seeds per task.
        second: values of the other variant, with the same tasks.

    Returns:
        p, at least 2 / (RESAMPLES + 1); nan without a task, or where a group has fewer than two seeds.
    """
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in zip(first, second, strict=True)]
    if not pairs or min(min(len(a), len(b)) for a, b in pairs) < 2:
        return math.nan
    weights = _strata_weights(tuple((len(a), len(b)) for a, b in pairs))
    values = np.concatenate([part for pair in pairs for part in pair])[None]
    observed = np.array([np.mean([a.mean() - b.mean() for a, b in pairs])])
    return float(_two_sided(weights @ values.T, observed, TIES * np.abs(values).max(axis=1), exact=False)[0])


def _two_sided(null: np.ndarray, observed: np.ndarray, margin: np.ndarray, exact: bool) -> np.ndarray:
    """Twice the smaller tail; null is (rearrangements, studies), the others are (studies,)."""
    adjustment = 0 if exact else 1
    tails = [(null <= observed + margin).sum(axis=0), (null >= observed - margin).sum(axis=0)]
    return np.minimum(1.0, 2 * (np.minimum(*tails) + adjustment) / (len(null) + adjustment))


@cache
def _strata_weights(sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(RESAMPLES, all values) weights of a mean difference over tasks, with every task regrouped on its own."""
    rng = np.random.default_rng(0)
    return np.concatenate([_random_weights(n, other, rng) for n, other in sizes], axis=1) / len(sizes)


@cache
def _weights(n: int, other: int, pairing: Pairing) -> tuple[np.ndarray, bool]:
    """The weights that make a difference of means of each rearrangement, and True if these are all rearrangements."""
    exact = rearrangements(n, other, pairing) <= EXACT
    rng = np.random.default_rng(0)
    if pairing == "paired":
        signs = list(itertools.product((1.0, -1.0), repeat=n)) if exact else rng.choice([1.0, -1.0], (RESAMPLES, n))
        return np.asarray(signs) / n, exact
    if not exact:
        return _random_weights(n, other, rng), exact
    return _grouping_weights(np.array(list(itertools.combinations(range(n + other), n))), other), exact


def _random_weights(n: int, other: int, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.permuted(np.tile(np.arange(n + other), (RESAMPLES, 1)), axis=1)[:, :n]
    return _grouping_weights(chosen, other)


def _grouping_weights(chosen: np.ndarray, other: int) -> np.ndarray:
    """(groupings, n + other) weights of a difference of means; chosen is (groupings, n) places of the first group."""
    weights = np.full((len(chosen), chosen.shape[1] + other), -1 / other)
    np.put_along_axis(weights, chosen, 1 / chosen.shape[1], axis=1)
    return weights


def logrank_scores(times: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """The score of every observation in the log-rank test: its event minus the cumulative hazard until its time.

    The scores of a group sum to the numerator of the test, the events of the group minus their expectation. All scores
    sum to 0. Source: N. Mantel, "Evaluation of survival data and two new rank order statistics arising in its
    consideration", Cancer Chemotherapy Reports 50 (1966), 163-170, with the hazard of Nelson and Aalen.

    Args:
        times: (…, n) time of the event, or until which none was seen.
        reached: (…, n) True where the event was seen.

    Returns:
        (…, n) scores; an early event has a high score.
    """
    times, events = np.asarray(times, float), np.asarray(reached, float)
    before = times[..., None, :] <= times[..., :, None]  # [i, j]: the time of j is not after the time of i
    at_risk = before.sum(axis=-2)
    hazard = (before * (events / at_risk)[..., None, :]).sum(axis=-1)
    return events - hazard


def logrank_p(first: Times, second: Times) -> float:
    """Two-sided p of the log-rank test of two groups of times, over all regroupings of the training seeds.

    The normal approximation of `scipy.stats.logrank` is too small with few seeds: three against three times that do not
    overlap have a p of 0.02 there, though 2 of 20 regroupings are as extreme. Source of the permutation: R. Peto and J.
    Peto, "Asymptotically efficient rank invariant test procedures", Journal of the Royal Statistical Society A 135
    (1972), 185-207.

    Args:
        first: (times, whether the event was seen) of a variant, a value per training seed.
        second: the same of the other variant.

    Returns:
        p, at least `smallest_p`; nan where a group has fewer than two seeds.
    """
    n = len(first[0])
    scores = logrank_scores(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
    return permutation_p(scores[:n], scores[n:])


def holm(values: Sequence[float]) -> list[float]:
    """p after Holm's correction for all of `values`; a nan stays nan and does not count.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979), 65-70.
    """
    from statsmodels.stats.multitest import multipletests  # slow to import, and used by reports alone

    values = np.asarray(values, float)
    corrected = np.full(len(values), math.nan)
    counted = ~np.isnan(values)
    if counted.any():
        corrected[counted] = multipletests(values[counted], method="holm")[1]
    return corrected.tolist()


@dataclass(frozen=True)
class Bounds:
    """One-sided 95 % limits of an effect: each errs in 5 of 100 studies; together a 90 % interval."""

    n: int
    value: float
    low: float
    high: float

    def is_within(self, margin: float) -> bool:
        """True where two one-sided tests show that the effect lies inside ±margin (equivalence).

        Source: D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", Journal of
        Pharmacokinetics and Biopharmaceutics 15 (1987), 657-680.
        """
        return self.low > -margin and self.high < margin


def seed_bounds(effects: Sequence[float], variances: Sequence[float], error: float = 0.05) -> Bounds:
    """One-sided limits of the mean effect over training seeds, by Student's t.

    The standard error is the larger of two: from the spread over seeds, and from the episodes of each seed. A few seeds
    with equal counts have no spread, and their episodes still have an error.

    Args:
        effects: an effect per training seed.
        variances: the variance of each effect over episodes.
        error: error rate of each limit.

    Returns:
        The mean with its limits; nan limits for fewer than two seeds.
    """
    effects, variances = np.asarray(effects, float), np.asarray(variances, float)
    n = len(effects)
    if n < 2:
        return Bounds(n, float(effects.mean()) if n else math.nan, math.nan, math.nan)
    squared = max(effects.var(ddof=1) / n, variances.sum() / n**2)
    half = float(stats.t.ppf(1 - error, n - 1) * math.sqrt(squared))
    mean = float(effects.mean())
    return Bounds(n, mean, mean - half, mean + half)


def welch_bounds(
    effects: Sequence[float],
    others: Sequence[float],
    variances: Sequence[float],
    other_variances: Sequence[float],
    error: float = 0.05,
) -> Bounds:
    """One-sided limits of the difference of two variants' mean effects, by Welch's t.

    Args:
        effects: an effect per training seed of the variant.
        others: an effect per training seed of the reference variant.
        variances: the variance of each of `effects` over episodes.
        other_variances: the same for `others`.
        error: error rate of each limit.

    Returns:
        The difference with its limits; nan limits where a variant has fewer than two seeds.
    """
    groups = [np.asarray(group, float) for group in (effects, others)]
    n = min(map(len, groups))
    value = float(groups[0].mean() - groups[1].mean()) if n else math.nan
    if n < 2:
        return Bounds(n, value, math.nan, math.nan)
    parts = [
        max(group.var(ddof=1) / len(group), float(np.sum(floor)) / len(group) ** 2)
        for group, floor in zip(groups, (variances, other_variances), strict=True)
    ]
    total = sum(parts)
    if total == 0:
        return Bounds(n, value, value, value)
    freedom = total**2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    half = float(stats.t.ppf(1 - error, freedom) * math.sqrt(total))
    return Bounds(n, value, value - half, value + half)


def seeds_for_power(effect: float, spread: float, power: float = 0.8, error: float = 0.05) -> int:
    """Training seeds per variant for which a two-sided t test finds a difference of means with this power.

    Args:
        effect: the difference of means.
        spread: standard deviation over the seeds of a variant.
        power: probability to find the difference.
        error: two-sided error rate, after any correction.

    Returns:
        The number of seeds, at least 2.
    """
    from statsmodels.stats.power import TTestIndPower  # slow to import, and used by plans alone

    for seeds in range(2, 1000):
        if TTestIndPower().power(effect / spread, seeds, error) >= power:
            return seeds
    return 1000
