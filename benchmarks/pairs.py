"""Paired timing: A B A B …, the ratio pair by pair, its median and an interval.

A machine's speed drifts; neighbours in time see the same machine, so ratios of neighbours can be trusted where times
cannot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Seconds per call of a baseline and of an alternative, `rounds` interleaved calls each."""

    baseline: np.ndarray
    alternative: np.ndarray

    @property
    def speedup(self) -> np.ndarray:
        """Per round: how many times faster the alternative is."""
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
    """Lines of Markdown, closed by an empty one."""
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(r)} |" for r in rows), ""]


def compare(baseline: Callable[[], object], alternative: Callable[[], object], rounds: int = 21) -> Comparison:
    """Both are called twice to warm up, then in turn, the order of a pair swapped every round."""
    for _ in range(2):
        baseline()
        alternative()
    seconds = np.empty((rounds, 2))
    for i in range(rounds):
        pair = [(0, baseline), (1, alternative)]
        for column, call in pair if i % 2 == 0 else reversed(pair):
            started = time.perf_counter()
            call()
            seconds[i, column] = time.perf_counter() - started
    return Comparison(seconds[:, 0], seconds[:, 1])


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Distribution-free 95 % interval of the median from order statistics (binomial with p = 1/2)."""
    n = len(values)
    half = 1.96 * np.sqrt(n) / 2
    low, high = max(0, int(np.floor(n / 2 - half))), min(n - 1, int(np.ceil(n / 2 + half)))
    ordered = np.sort(values)
    return float(ordered[low]), float(ordered[high])
