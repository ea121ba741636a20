"""A call whose peak memory a fresh process measures; the process imports this module and no test."""

from __future__ import annotations

import numpy as np

from benchmarks.memory import added_peak


def peak_after_a_larger_array(megabytes: int) -> float:
    """Return the MB that an array of `megabytes` adds, after a larger array was freed."""
    held = np.ones(60_000_000)
    del held
    return added_peak(lambda: np.ones(megabytes * 131_072).sum(), "cpu")
