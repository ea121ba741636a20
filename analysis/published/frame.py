"""All published numbers in one tidy frame, and the averages that the papers print."""

from __future__ import annotations

from functools import cache

import pandas as pd

from analysis.published.tables import TABLES, PublishedTable
from muvla.stats import wilson

AVERAGE = r"^(?:average|avg\.)"
LIBERO_90 = 4500  # episodes of LIBERO-90, which has 90 tasks of 50 episodes
COLUMNS = [
    "table",
    "paper",
    "source",
    "model",
    "variant",
    "group",
    "task",
    "our_task",
    "rate",
    "n",
    "low",
    "high",
    "regime",
    "differences",
]


def published_frame() -> pd.DataFrame:
    """Every published success rate.

    Returns:
        A line per table, model and task with columns `COLUMNS`: variant (ours that corresponds, or missing), group (of
        tasks, empty where a table has none), our_task (beginning of the names of our tasks, or missing), rate (a
        fraction), n (episodes, <NA> where not known), low and high (95 % Wilson limits, nan without n), regime (empty
        where not stated) and differences (facts, separated by "; ").
    """
    return _lines().copy()


@cache
def _lines() -> pd.DataFrame:
    tables = [_numbers(table) for table in TABLES]
    return pd.concat([_described(lines, table) for lines, table in zip(tables, TABLES, strict=True)], ignore_index=True)


def printed(table: PublishedTable) -> pd.DataFrame:
    """The numbers of one file as printed, averages among them.

    Returns:
        Columns group, task, model, value; without the numbers that a paper does not report.
    """
    frame = pd.read_csv(table.file)
    if table.by_task:
        lines = frame.melt(id_vars=["group", "task"], var_name="model")
    else:
        first = frame.columns[0]
        frame = frame.drop(columns="memory", errors="ignore").rename(columns={first: "model"})
        lines = frame.melt(id_vars=["model"], var_name="task").assign(group="")
    return lines.dropna(subset=["value"])[["group", "task", "model", "value"]].reset_index(drop=True)


def is_average(tasks: pd.Series) -> pd.Series:
    return tasks.str.lower().str.contains(AVERAGE)


def _numbers(table: PublishedTable) -> pd.DataFrame:
    lines = printed(table)
    return lines[~is_average(lines["task"])]


def _described(lines: pd.DataFrame, table: PublishedTable) -> pd.DataFrame:
    rate = lines["value"] / (100 if table.percent else 1)
    episodes = [_episodes(table, line) for _, line in lines.iterrows()]
    limits = [wilson(round(r * n), n) if n else (float("nan"),) * 2 for r, n in zip(rate, episodes, strict=True)]
    return lines.assign(
        table=table.name,
        paper=table.paper,
        source=table.source,
        variant=lines["model"].map(dict(table.variants)).astype(object),
        our_task=lines["task"].map(dict(table.tasks)).astype(object),
        rate=rate,
        n=pd.array(episodes, dtype="Int64"),
        low=[low for low, _ in limits],
        high=[high for _, high in limits],
        regime=table.regime,
        differences="; ".join(table.differences),
    )[COLUMNS]


def _episodes(table: PublishedTable, line: pd.Series) -> int | None:
    if line["model"] not in table.measured:
        return None
    return LIBERO_90 if line["task"] == "Long-90" else table.episodes
