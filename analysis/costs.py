"""The frame of accuracy against cost: rates without intervention, joined with the costs of the variants."""

from __future__ import annotations

import pandas as pd

NUMBERS = ("parameters", "MEMORY tokens", "memory FLOPs/tick", "model FLOPs/tick", "bytes/slot")


def cost_frame(rates: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """The plain lines of a tidy frame with the numbers of `sweeps.costs.HEADER` as further columns.

    Args:
        rates: `analysis.frames.tidy`.
        costs: texts with the columns of `sweeps.costs.HEADER`, as in costs.csv. A variant without a line is left out.
    """
    plain = rates[(rates["intervention"] == "none") & ~rates["never_fired"].astype(bool)]
    numbers = costs.drop_duplicates("variant").set_index("variant")[list(NUMBERS)]
    numbers = numbers.map(lambda text: float(str(text).replace(",", "")))
    return plain[plain["variant"].isin(numbers.index)].join(numbers, on="variant")
