"""The section of a report that sets the papers' numbers beside ours."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from analysis.published import beside
from analysis.report.folder import ReportFolder
from analysis.tables import NO_VALUE, to_markdown
from muvla.evaluation.protocol import Protocol

WORDS = (
    "Published numbers on the same tasks. This project did not measure them. They are no controlled comparison: "
    "the last line of each table names differences. Brackets hold 95 % Wilson intervals where the paper states its "
    "episodes"
)


def published_section(folder: ReportFolder, rates: pd.DataFrame, protocols: Iterable[Protocol]) -> list[str]:
    """Writes published.csv; empty where no task of the study has a published number.

    Args:
        folder: where files go.
        rates: the tidy frame of the cells.
        protocols: the study's protocols.
    """
    joined = beside(rates, protocols)
    if joined.empty:
        return []
    folder.write_csv("published.csv", joined)
    text = [f"{WORDS}.", ""]
    for _, lines in joined.groupby("table", sort=False):
        text += [f"{lines['source'].iloc[0]}:", "", to_markdown(published_table(lines)), "", differences(lines), ""]
    return text


def published_table(joined: pd.DataFrame) -> pd.DataFrame:
    """A row per published model, and after it our variants on the same tasks; a column per task.

    Args:
        joined: lines of one published table from `analysis.published.beside`.
    """
    tasks = list(joined["task"].drop_duplicates())
    rows = []
    for model, lines in joined.groupby("model", sort=False):
        rows.append({"model": f"{model} (published)"} | _entries(lines, tasks, published_entry))
    for (variant, length, regime), lines in joined.groupby(["our_variant", "U", "our_regime"], sort=False):
        name = f"{variant}, U = {length}" + (f", {regime}" if joined["our_regime"].nunique() > 1 else "")
        rows.append({"model": f"{name} (ours)"} | _entries(lines, tasks, our_entry))
    return pd.DataFrame(rows)


def _entries(lines: pd.DataFrame, tasks: list[str], entry) -> dict[str, str]:
    by_task = {line["task"]: line for _, line in lines.iterrows()}
    return {task: entry(by_task[task]) if task in by_task else NO_VALUE for task in tasks}


def published_entry(line: pd.Series) -> str:
    """For example "0.93 [0.86, 0.97] n = 100"; the rate alone where the paper does not state n."""
    if pd.isna(line["n"]):
        return f"{line['rate']:.2f}"
    return f"{line['rate']:.2f} [{line['low']:.2f}, {line['high']:.2f}] n = {line['n']:.0f}"


def our_entry(line: pd.Series) -> str:
    """For example "0.91 ± 0.03, 3 seeds of n = 100"."""
    spread = "" if pd.isna(line["our_sd"]) else f" ± {line['our_sd']:.2f}"
    noun = "seed" if line["seeds"] == 1 else "seeds"
    return f"{line['our_mean']:.2f}{spread}, {line['seeds']} {noun} of n = {line['our_n']}"


def differences(joined: pd.DataFrame) -> str:
    """A sentence: the facts that differ between a published table and ours."""
    facts = [
        fact for column in ("differences", "our_differences") for text in joined[column] for fact in text.split("; ")
    ]
    return f"Known differences: {'; '.join(dict.fromkeys(facts))}."
