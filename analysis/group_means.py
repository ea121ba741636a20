"""The columns of a contrast that describe two groups of training seeds, before any test."""

from __future__ import annotations

from typing import Any

import pandas as pd

from muvla.stats.means import difference_interval


def compare_means(first: pd.Series, second: pd.Series) -> dict[str, Any]:
    """Means and spreads of two groups of seeds, their difference and its interval."""
    low, high = difference_interval(first, second)
    return {
        "n": len(first),
        "reference_n": len(second),
        "mean": first.mean(),
        "sd": first.std(),
        "reference_mean": second.mean(),
        "reference_sd": second.std(),
        "difference": first.mean() - second.mean(),
        "low": low,
        "high": high,
    }
