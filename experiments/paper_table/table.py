"""Prints the published table of 23 tasks with our column, and the papers' averages recomputed.

python -m experiments.paper_table.table
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.frames import NOT_RUN, read_cells
from analysis.published import averages, beside, disagreements, published_frame
from analysis.report.published import our_entry
from analysis.tables import NO_VALUE, to_markdown

FOLDER = Path(__file__).parent
TABLE = "muvla_mikasa23"
WORDS = (
    "Published success rates of 100 episodes each, whose 95 % Wilson intervals are up to ±0.10 wide. This project did "
    "not measure them."
)


def main(folder: Path = FOLDER) -> None:
    """Prints Markdown.

    Args:
        folder: the study's folder; the column "ours" comes from `results*/cells.csv` in it.
    """
    ours = our_rates(folder)
    print(f"{WORDS}\n\n{to_markdown(published_with_ours(ours))}\n")
    print(f"Averages as printed, and the means of the printed numbers:\n\n{to_markdown(averages_table())}\n")
    print("Averages that the printed numbers do not give, in all tables of both papers:\n")
    print("\n".join(f"- {sentence}" for sentence in disagreements()))


def our_rates(folder: Path) -> pd.DataFrame:
    """Our lines of the published models' counterparts; empty before the first result."""
    frames = [beside(read_cells(file)) for file in sorted(folder.glob("results*/cells.csv"))]
    lines = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return lines[(lines["table"] == TABLE) & lines["same_variant"]] if len(lines) else lines


def published_with_ours(ours: pd.DataFrame) -> pd.DataFrame:
    """A row per task, a column per published model, and the column "ours".

    Args:
        ours: lines of `analysis.published.beside`.
    """
    lines = published_frame()
    lines = lines[lines["table"] == TABLE]
    table = lines.pivot(index="task", columns="model", values="rate").loc[
        lines["task"].drop_duplicates(), lines["model"].drop_duplicates()
    ]
    table = table.map("{:.2f}".format).rename_axis(columns=None).reset_index()
    groups = lines.drop_duplicates("task")["group"].to_list()
    return table.assign(ours=[_ours(ours, task) for task in table["task"]]).pipe(_with_groups, groups)


def _ours(ours: pd.DataFrame, task: str) -> str:
    lines = ours[ours["task"] == task] if len(ours) else ours
    return "; ".join(f"{line['our_variant']} {our_entry(line)}" for _, line in lines.iterrows()) or NOT_RUN


def _with_groups(table: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
    """The group stands at its first task alone."""
    first = [group if i == 0 or group != groups[i - 1] else "" for i, group in enumerate(groups)]
    table.insert(0, "group", first)
    return table


def averages_table() -> pd.DataFrame:
    """A row per group of tasks, a column per model: the printed average, and the recomputed mean where it disagrees."""
    lines = averages()
    lines = lines[lines["table"] == TABLE]
    entries = lines.assign(
        group=lines["group"].replace("", "all") + " (" + lines["tasks"].astype(str) + ")",
        text=[_average(line) for _, line in lines.iterrows()],
    )
    table = entries.pivot(index="group", columns="model", values="text")
    table = table.loc[entries["group"].drop_duplicates(), entries["model"].drop_duplicates()]
    return table.fillna(NO_VALUE).rename_axis(columns=None).reset_index()


def _average(line: pd.Series) -> str:
    shown = f"{line['printed']:.2f}"
    return shown if line["agreement"] == "agrees" else f"{shown}, recomputed {line['recomputed']:.3f}"


if __name__ == "__main__":
    main()
