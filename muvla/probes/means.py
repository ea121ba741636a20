"""Means over episodes with confidence intervals."""

from __future__ import annotations

import pandas as pd

from muvla.stats import student_interval


def means(values: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Average the column `value` per combination of the columns `by`.

    Args:
        values: a line per observation; lines without a value do not count.
        by: columns to group by.

    Returns:
        A line per combination: the mean `value` over `n` lines, and `low` and `high`, its 95 % interval of Student's t
        (NaN for n = 1).
    """
    grouped = values.dropna(subset="value").groupby(by, sort=True)["value"]
    table = grouped.agg(value="mean", spread="std", n="count").reset_index()
    table["low"], table["high"] = student_interval(table["value"], table["spread"], table["n"])
    return table.drop(columns="spread")
