"""The papers' averages, beside the averages of the numbers that the papers print."""

from __future__ import annotations

import pandas as pd

from analysis.published.frame import is_average, printed
from analysis.published.tables import TABLES, PublishedTable

AGREES, ROUNDING, DISAGREES = "agrees", "within rounding", "disagrees"
SLACK = 1e-9  # of floating-point sums


def averages() -> pd.DataFrame:
    """Every printed average with the unweighted mean of the printed numbers that it covers.

    Returns:
        Columns table, model, group (empty for the mean over all), tasks (their number), printed, recomputed (both in
        the table's unit) and agreement. "within rounding" means that the rounding of the printed numbers can explain
        the difference.
    """
    return pd.DataFrame([line for table in TABLES for line in _of_table(table)])


def disagreements() -> list[str]:
    """A sentence for every printed average that its numbers cannot give."""
    lines = averages()
    return [_sentence(line) for _, line in lines[lines["agreement"] == DISAGREES].iterrows()]


def _of_table(table: PublishedTable):
    lines = printed(table)
    mean = is_average(lines["task"])
    numbers = lines[~mean]
    for _, line in lines[mean].iterrows():
        over_all = not table.by_task or line["task"].startswith("Avg.")
        group = "" if over_all else line["group"]
        covered = numbers[(numbers["model"] == line["model"]) & (over_all | (numbers["group"] == group))]["value"]
        yield {
            "table": table.name,
            "model": line["model"],
            "group": group,
            "tasks": len(covered),
            "printed": line["value"],
            "recomputed": covered.mean(),
            "agreement": _agreement(line["value"], covered.mean(), table),
        }


def _agreement(shown: float, mean: float, table: PublishedTable) -> str:
    """Rounding moves a mean of numbers by half a last digit at most, and the printed average by another half."""
    half = 0.5 * 10.0**-table.decimals
    if abs(shown - mean) <= half + SLACK:
        return AGREES
    return ROUNDING if abs(shown - mean) <= 2 * half + SLACK else DISAGREES


def _sentence(line: pd.Series) -> str:
    of = f" of {line['group']}" if line["group"] else ""
    return (
        f"`{line['table']}`, {line['model']}: the printed average{of} is {line['printed']:g}, the mean of the "
        f"{line['tasks']} printed numbers {line['recomputed']:.3g}."
    )
