"""Error and power of the contrast in the time to learn, on simulated studies.

A simulated training seed learns after a number of updates from one of three distributions, or never. A study evaluates
it at declared updates, so a time is known up to the grid of updates and is censored after the last one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from muvla.stats.hypotheses import logrank_scores, permutation_ps, smallest_p
from muvla.stats.proportions import wilson
from muvla.utils.rng import numpy_rng
from sweeps.contrasts import LEVEL

UPDATES = np.array([50, 100, 150, 200, 300, 400, 600, 800])
SEEDS = (3, 5, 10, 20)
FACTORS = (1.0, 0.75, 0.5, 0.25)  # of the first variant's times
LEARN = 0.6  # share of the seeds that learn, in the bimodal distribution
TEST, NORMAL = "logrank", "logrank, normal approximation"

# Name → updates until (studies, seeds) training seeds have learned; infinite for a seed that never learns.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "spread": lambda rng, shape: 250 * np.exp(rng.normal(0, 0.4, shape)),
    "bimodal": lambda rng, shape: np.where(rng.random(shape) < LEARN, 200 * np.exp(rng.normal(0, 0.3, shape)), np.inf),
    "late": lambda rng, shape: 1000 * np.exp(rng.normal(0, 0.5, shape)),  # most times are censored
}


def observe(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first declared update that is not before each time, and whether there is one."""
    reached = times <= UPDATES[-1]
    places = np.searchsorted(UPDATES, np.where(reached, times, UPDATES[-1]))
    return UPDATES[places].astype(float), reached


def time_rates(studies: int) -> pd.DataFrame:
    """A line per test, distribution, factor and number of seeds: how often the test finds a difference.

    `attainable` is the largest error rate below 0.05 that the number of regroupings allows. The normal approximation of
    `scipy.stats.logrank` stands beside the test of a report where there is no difference.
    """
    lines = []
    for name, distribution in DISTRIBUTIONS.items():
        for factor in FACTORS:
            for seeds in SEEDS:
                rng = numpy_rng(0, "times", name, str(factor), str(seeds))
                first, second = (distribution(rng, (studies, seeds)) for _ in range(2))
                observed = observe(np.concatenate([factor * first, second], axis=1))
                scores = logrank_scores(*observed)
                significant = permutation_ps(scores[:, :seeds], scores[:, seeds:]) <= LEVEL
                lines.append(_line(TEST, name, factor, seeds, significant))
                if factor == 1.0:
                    lines.append(_line(NORMAL, name, factor, seeds, _approximate_ps(*observed) <= LEVEL))
    return pd.DataFrame(lines)


def _approximate_ps(times: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """(studies,) p of `scipy.stats.logrank` for two groups of equal size; 1 where no seed learned."""
    n = times.shape[1] // 2
    ps = []
    for study, seen in zip(times, reached, strict=True):
        if seen.any():
            groups = [
                stats.CensoredData.right_censored(study[half], ~seen[half]) for half in (slice(n), slice(n, None))
            ]
            with np.errstate(invalid="ignore"):  # equal times in all seeds have no spread
                ps.append(stats.logrank(*groups).pvalue)
        else:
            ps.append(1.0)
    return np.array(ps)


def _line(test: str, name: str, factor: float, seeds: int, significant: np.ndarray) -> dict[str, object]:
    count, studies, step = int(significant.sum()), len(significant), smallest_p(seeds, seeds)
    low, high = wilson(count, studies)
    line = {"test": test, "distribution": name, "factor": factor, "seeds": seeds, "studies": studies}
    return line | {"significant": count / studies, "low": low, "high": high, "attainable": step * (LEVEL // step)}
