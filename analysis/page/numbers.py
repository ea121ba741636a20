"""How the page writes numbers: rounded for the reader, with the whole value beside them."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from analysis.page.svg import tag
from analysis.tables import NO_VALUE


def number(value: float, digits: int = 2, sign: bool = False) -> Markup:
    """A `<data>` element: its text is rounded, its attribute `value` has six digits. A dash for a missing number."""
    if pd.isna(value):
        return Markup(NO_VALUE)
    return tag("data", plain(value, digits, sign), value=f"{value:.6g}")


def plain(value: float, digits: int = 2, sign: bool = False) -> str:
    """The text of a number; a dash for a missing number."""
    if pd.isna(value):
        return NO_VALUE
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(low: float, high: float, sign: bool = False) -> Markup:
    """Two limits in brackets; empty where a limit is missing."""
    if pd.isna(low) or pd.isna(high):
        return Markup("")
    return tag("small", f"[{plain(low, 2, sign)}, {plain(high, 2, sign)}]", class_="interval")


def plus_minus(values: pd.Series) -> Markup:
    """Mean ± standard deviation over training seeds; the mean alone for one seed."""
    values = values.dropna()
    if values.empty:
        return Markup(NO_VALUE)
    mean = number(values.mean())
    return mean if len(values) == 1 else mean + Markup(" ") + tag("small", f"± {plain(values.std())}")
