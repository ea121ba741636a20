"""The frame of accuracy against delay, from the episode rows of plain runs."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from analysis.frames import METRIC_TITLES, METRICS
from analysis.frames import rates_of as summarised
from analysis.intervention_frames import labelled
from muvla.evaluation.records import CellRecords, EpisodeRow


def delay_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """A line per cell, protocol and length of the delay.

    Returns:
        Columns order, variant, seed, protocol, chance, delay (steps), quantity (the metric's title: first-touch
        accuracy given a touch, or success where nothing is chosen), n, rate, low and high (95 % Wilson limits). Empty
        where no episode has a delay.
    """
    lines = []
    for order, (variant, cell) in enumerate(labelled(cells)):
        for (protocol, intervention), rows in cell.rows.items():
            if intervention == "none":
                head = {"order": order, "variant": variant, "seed": cell.cell.seed, "protocol": protocol}
                chance = cell.chance[protocol]
                head["chance"] = float("nan") if chance is None else chance
                lines += [head | line for line in _by_delay(rows)]
    return pd.DataFrame(lines)


def _by_delay(rows: list[EpisodeRow]) -> list[dict[str, object]]:
    groups: dict[int, list[EpisodeRow]] = defaultdict(list)
    for row in rows:
        if row.error is None and row.delay_length is not None:
            groups[row.delay_length].append(row)
    chooses = any(summarised(group)["choices"] for group in groups.values())
    metric = "choice" if chooses else "success"
    lines = []
    for delay, group in sorted(groups.items()):
        counts = summarised(group)
        rates = {name: counts[f"{metric}_{name}"] for name in ("rate", "low", "high")}
        lines.append({"delay": delay, "quantity": METRIC_TITLES[metric], "n": counts[METRICS[metric][1]]} | rates)
    return lines
