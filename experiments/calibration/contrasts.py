"""Error, power and coverage of contrasts on simulated studies: `python -m experiments.calibration.contrasts`.

A simulated training seed has a success rate from one of three distributions, and 200 episodes. Tests and intervals are
those of a report (`muvla.stats`).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from experiments.calibration.measured import RESULTS, seed_rates
from experiments.calibration.times import time_rates
from muvla.stats.hypotheses import (
    Pairing,
    permutation_ps,
    seed_bounds,
    smallest_p,
    stratified_permutation_p,
    welch_bounds,
)
from muvla.stats.means import bootstrap_interval, stratified_welch_interval, student_interval, welch_interval
from muvla.stats.proportions import clopper_pearson, newcombe, newcombe_unpaired, wilson
from muvla.utils.rng import numpy_rng
from sweeps.contrasts import LEVEL, PAIRED_SEEDS

EPISODES = 200
SEEDS = (3, 5, 10, 20)
EFFECTS = (0.0, 0.1, 0.2, 0.5)
TASKS = 4  # of a comparison over tasks
SHARE = 0.6  # of the seeds that learn, in the bimodal distribution and for Fisher's test
Limits = tuple[float, float]


# Name → success rates of (studies, seeds) training seeds.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "spread": lambda rng, shape: rng.normal(0.25, 0.07, shape),
    "bimodal": lambda rng, shape: np.where(rng.random(shape) < SHARE, 0.4, 0.02),
    "measured": lambda rng, shape: rng.choice(seed_rates("K=2", "success"), shape),
}


def draw(
    name: str, effect: float, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Success of two variants, (studies, seeds) each, and the true difference of their means.

    Args:
        name: key of DISTRIBUTIONS.
        effect: shift of the first variant's rates, which stay below 1.
        shape: studies and seeds.
        rng: generator.
    """
    first, second = (DISTRIBUTIONS[name](rng, shape) for _ in range(2))
    shifted = np.clip(first + effect, 0, 1)
    large = np.clip(DISTRIBUTIONS[name](rng, (1, 400_000)), 0, 1)
    true = float((np.clip(large + effect, 0, 1) - large).mean())
    return rng.binomial(EPISODES, shifted) / EPISODES, rng.binomial(EPISODES, np.clip(second, 0, 1)) / EPISODES, true


def contrast_rates(studies: int) -> pd.DataFrame:
    """A line per test, distribution, difference and number of seeds: how often the test finds a difference.

    `difference` is the planted shift, `true` the difference of the means after it, `attainable` the largest error rate
    below 0.05 that the number of rearrangements allows.
    """
    lines = []
    tests: tuple[Pairing, ...] = ("unpaired", "paired")
    for test in tests:
        for name in DISTRIBUTIONS:
            for effect in EFFECTS:
                for seeds in SEEDS:
                    if test == "paired" and seeds < PAIRED_SEEDS:
                        continue
                    rng = numpy_rng(0, "contrast", test, name, str(effect), str(seeds))
                    first, second, true = draw(name, effect, (studies, seeds), rng)
                    count = int((permutation_ps(first, second, test) <= LEVEL).sum())
                    step = smallest_p(seeds, seeds, test)
                    low, high = wilson(count, studies)
                    line = {"test": test, "distribution": name, "difference": effect, "true": true, "seeds": seeds}
                    counts = {"studies": studies, "significant": count / studies, "low": low, "high": high}
                    lines.append(line | counts | {"attainable": step * (LEVEL // step)})
    designs = itertools.product(DISTRIBUTIONS, EFFECTS, SEEDS)
    of_tasks = [_stratified_line(name, effect, seeds, studies) for name, effect, seeds in designs]
    return pd.DataFrame([*lines, *of_tasks, *(_fisher_line(seeds, studies) for seeds in SEEDS)])


def _stratified_line(name: str, effect: float, seeds: int, studies: int) -> dict[str, object]:
    """The test over TASKS tasks, whose rates differ by a constant, with so many seeds on each."""
    rng = numpy_rng(0, "stratified", name, str(effect), str(seeds))
    first, second, true = draw(name, effect, (studies * TASKS, seeds), rng)
    levels = np.tile(np.linspace(0, 1, TASKS), studies)[:, None]
    pairs = [(group + levels).reshape(studies, TASKS, seeds) for group in (first, second)]
    count = sum(stratified_permutation_p(a, b) <= LEVEL for a, b in zip(*pairs, strict=True))
    low, high = wilson(count, studies)
    line = {"test": "stratified", "distribution": name, "difference": effect, "true": true, "seeds": seeds}
    return line | {"studies": studies, "significant": count / studies, "low": low, "high": high, "attainable": LEVEL}


def _fisher_line(seeds: int, studies: int) -> dict[str, object]:
    """Fisher's test of seeds that learned, without a difference."""
    rng = numpy_rng(0, "fisher", str(seeds))
    counts = rng.binomial(seeds, SHARE, (studies, 2))
    table: dict[tuple[int, int], bool] = {}
    for a, b in {tuple(pair) for pair in counts.tolist()}:
        table[a, b] = stats.fisher_exact([[a, seeds - a], [b, seeds - b]]).pvalue <= LEVEL
    count = sum(table[tuple(pair)] for pair in counts.tolist())
    low, high = wilson(count, studies)
    line = {"test": "fisher", "distribution": "bimodal", "difference": 0.0, "true": 0.0, "seeds": seeds}
    return line | {"studies": studies, "significant": count / studies, "low": low, "high": high}


# --- intervals --------------------------------------------------------------------------------------------------------


def over_seeds(interval: Callable[[np.ndarray, np.ndarray], Limits], name: str, seeds: int, studies: int) -> float:
    """Coverage of a difference of means by an interval of two variants' scores."""
    rng = numpy_rng(0, "interval", name, str(seeds))
    first, second, true = draw(name, 0.1, (studies, seeds), rng)
    limits = [interval(a, b) for a, b in zip(first, second, strict=True)]
    return float(np.mean([low <= true <= high for low, high in limits]))


def _over_tasks(first: np.ndarray, second: np.ndarray) -> Limits:
    return stratified_welch_interval(first.reshape(TASKS, -1), second.reshape(TASKS, -1))


def _seed_limits(first: np.ndarray, second: np.ndarray) -> Limits:
    """Limits of a verdict on the differences of pairs of seeds, which have the variance of two proportions."""
    bounds = seed_bounds(first - second, _variance(first) + _variance(second))
    return bounds.low, bounds.high


def _welch_limits(first: np.ndarray, second: np.ndarray) -> Limits:
    bounds = welch_bounds(first, second, _variance(first), _variance(second))
    return bounds.low, bounds.high


def _variance(rates: np.ndarray) -> np.ndarray:
    return np.maximum(rates * (1 - rates) / EPISODES, (1.8 / EPISODES) ** 2)


OVER_SEEDS: dict[str, tuple[float, tuple[int, ...], Callable[[np.ndarray, np.ndarray], Limits]]] = {
    "welch_interval": (0.95, (3, 5), welch_interval),
    "bootstrap_interval": (0.95, (10, 20), lambda a, b: bootstrap_interval([a], [b])),
    "stratified_welch_interval": (0.95, (3 * TASKS, 5 * TASKS), lambda a, b: _over_tasks(a, b)),
    "seed_bounds": (0.9, SEEDS, _seed_limits),
    "welch_bounds": (0.9, SEEDS, _welch_limits),
}
RATES = (0.05, 1 / 3, 0.6, 0.95)


def proportion(interval: Callable[..., Limits], n: int, rate: float, studies: int) -> float:
    """Coverage of one proportion."""
    counts = numpy_rng(0, "proportion", str(n), str(rate)).binomial(n, rate, studies)
    limits = {count: interval(int(count), n) for count in np.unique(counts)}
    return float(np.mean([limits[count][0] <= rate <= limits[count][1] for count in counts]))


def difference(n: int, rate: float, studies: int) -> float:
    """Coverage of the difference of two independent proportions, `rate` and 0.6."""
    counts = numpy_rng(0, "difference", str(n), str(rate)).binomial(n, [rate, 0.6], (studies, 2))
    limits = [newcombe_unpaired(int(a), n, int(b), n) for a, b in counts]
    return float(np.mean([low <= rate - 0.6 <= high for low, high in limits]))


def paired(n: int, rate: float, confidence: float, studies: int) -> float:
    """Coverage of a paired difference: `rate` before; the intervention takes 0.3 of the successes and gives 0.1."""
    rng = numpy_rng(0, "paired", str(n), str(rate), str(confidence))
    cells = [0.7 * rate, 0.3 * rate, 0.1 * (1 - rate), 0.9 * (1 - rate)]  # both, first, second, neither
    true = 0.1 * (1 - rate) - 0.3 * rate
    limits = [newcombe(*map(int, counts), confidence) for counts in rng.multinomial(n, cells, studies)]
    return float(np.mean([low <= true <= high for low, high in limits]))


def student(n: int, studies: int) -> float:
    """Coverage of the mean of exponential values, as changes of chunks are, by the 90 % interval."""
    values = numpy_rng(0, "student", str(n)).exponential(1.0, (studies, n))
    low, high = student_interval(values.mean(axis=1), values.std(axis=1, ddof=1), n, 0.9)
    return float(((low <= 1) & (high >= 1)).mean())


def interval_rates(studies: int) -> pd.DataFrame:
    """A line per interval that a report prints, setting and sample size: the share of studies that it covers."""
    lines = []

    def add(name: str, setting: str, n: int, nominal: float, coverage: float) -> None:
        line = {"interval": name, "setting": setting, "n": n, "studies": studies, "nominal": nominal}
        lines.append(line | {"coverage": coverage})

    for name, (nominal, sizes, interval) in OVER_SEEDS.items():
        for distribution in DISTRIBUTIONS:
            for seeds in sizes:
                add(name, distribution, seeds, nominal, over_seeds(interval, distribution, seeds, studies))
    for rate in RATES:
        for n in (20, EPISODES):
            add("wilson", f"rate {rate:.2f}", n, 0.95, proportion(wilson, n, rate, studies))
            for confidence in (0.9, 0.95):
                add("newcombe", f"rate {rate:.2f}", n, confidence, paired(n, rate, confidence, studies))
        for n in SEEDS:
            add("clopper_pearson", f"rate {rate:.2f}", n, 0.95, proportion(clopper_pearson, n, rate, studies))
            add("newcombe_unpaired", f"rate {rate:.2f} and 0.60", n, 0.95, difference(n, rate, studies))
    for n in (5, 20, EPISODES):
        add("student_interval", "exponential", n, 0.9, student(n, studies))
    return pd.DataFrame(lines)


PARTS = {"contrasts": contrast_rates, "intervals": interval_rates, "times": time_rates}


def main(arguments: list[str] | None = None) -> None:
    """Writes contrasts-simulated.csv, intervals-simulated.csv and times-simulated.csv."""
    parser = argparse.ArgumentParser(description="Measure error, power and coverage of contrasts.")
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies per line (%(default)s)")
    parser.add_argument("--part", choices=tuple(PARTS), help="one of the files (all)")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    for name, measure in PARTS.items():
        if options.part in (None, name):
            measure(options.studies).round(4).to_csv(RESULTS / f"{name}-simulated.csv", index=False)


if __name__ == "__main__":
    main()
