"""Means over episodes, with their intervals."""

from __future__ import annotations

import pandas as pd
from scipy.stats import t as student

CONFIDENCE = 0.95


def means(values: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """A line per combination of `by`: `value` is the mean of the column of that name over its `n` lines, `low` and
    `high` its 95 % interval of Student's t (none for n = 1). Lines without a value do not count."""
    grouped = values.dropna(subset="value").groupby(by, sort=True)["value"]
    table = grouped.agg(value="mean", spread="std", n="count").reset_index()
    half = student.ppf((1 + CONFIDENCE) / 2, table["n"] - 1) * table["spread"] / table["n"] ** 0.5
    table["low"], table["high"] = table["value"] - half, table["value"] + half
    return table.drop(columns="spread")
