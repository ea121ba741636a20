"""Paired timing: A B A B …, the ratio of each pair, the median of the ratios and the median's interval.

The speed of a machine drifts, but consecutive calls see the same speed. So ratios of consecutive calls are reliable,
while times are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UPS = 2  # calls of each side before the first timed pair


@dataclass(frozen=True)
class Comparison:
    """Seconds per call of a baseline and of an alternative, `rounds` interleaved calls each."""

    baseline: np.ndarray
    alternative: np.ndarray

    @property
    def speedup(self) -> np.ndarray:
        """Time of the baseline over time of the alternative, per round."""
        return self.baseline / self.alternative

    def line(self, work: float, unit: str) -> list[str]:
        """`work` units per call → [baseline rate, alternative rate, median ratio [95 % interval of the median]]."""
        low, high = median_interval(self.speedup)
        return [
            f"{work / np.median(self.baseline):,.0f} {unit}",
            f"{work / np.median(self.alternative):,.0f} {unit}",
            f"{np.median(self.speedup):.2f}× [{low:.2f}, {high:.2f}]",
        ]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table as lines, with an empty last line."""
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(r)} |" for r in rows), ""]


def compare(
    baseline: Callable[[], object],
    alternative: Callable[[], object],
    rounds: int = 21,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time two calls in pairs, after `WARM_UPS` calls of each. The order within a pair swaps every round.

    Args:
        baseline, alternative: the two calls.
        rounds: pairs.
        clock: seconds; `time.process_time` counts the processor's seconds, also on a machine with other work.
    """
    for _ in range(WARM_UPS):
        baseline()
        alternative()
    seconds = np.empty((rounds, 2))
    for i in range(rounds):
        pair = [(0, baseline), (1, alternative)]
        for column, call in pair if i % 2 == 0 else reversed(pair):
            started = clock()
            call()
            seconds[i, column] = clock() - started
    return Comparison(seconds[:, 0], seconds[:, 1])


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the distribution-free 95 % interval of the median, from order statistics (binomial with p = 1/2)."""
    n = len(values)
    half = 1.96 * np.sqrt(n) / 2
    low, high = max(0, int(np.floor(n / 2 - half))), min(n - 1, int(np.ceil(n / 2 + half)))
    ordered = np.sort(values)
    return float(ordered[low]), float(ordered[high])
