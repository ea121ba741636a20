"""The sections of a report on rates: one per protocol, and the means over sets of protocols."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis import baselines as baseline_rows
from analysis import tables
from analysis.by_seed import NAME as BY_SEED
from analysis.figures.base import Subject
from analysis.frames import METRIC_TITLES, metric_of, metrics_of
from analysis.learned import above_chance_sentence
from analysis.report.folder import ReportFolder
from muvla.evaluation.records import Baselines, CellRecords

MORE = f"[{BY_SEED}]({BY_SEED})"  # the file of what has no room in the report


def protocol_section(
    folder: ReportFolder,
    protocol: str,
    lines: pd.DataFrame,
    baselines: Baselines,
    suffix: str,
    undefined: Collection[tuple[str, str]] = (),
) -> list[str]:
    """Writes the tables and figures of one protocol; returns the Markdown of its section.

    Args:
        folder: where files go.
        protocol: the protocol's id.
        lines: its tidy lines.
        baselines: its baselines.
        suffix: end of its files' names; empty where the report has one protocol.
        undefined: (variant, intervention) of the pairs that are not applicable.
    """
    metric = metric_of(lines)
    main, interventions = protocol_tables(lines, baselines)
    interventions = tables.mark_not_applicable(interventions, undefined)
    folder.write_table(f"main{suffix}", main)
    folder.say(f"{protocol}:\n{tables.to_text(main)}" if suffix else tables.to_text(main))
    if not interventions.empty:
        title = METRIC_TITLES[metric].capitalize()
        folder.write_table(f"interventions{suffix}", interventions)
        folder.say(f"\n{title}, under interventions on the memory:\n")
        folder.say(tables.to_text(interventions) + "\n")
    text = [_introduction(protocol, lines, baselines), "", baseline_rows.sentence(baselines), ""]
    plain = lines[lines["intervention"] == "none"]
    if plain["best_constant"].notna().any():
        text += [above_chance_sentence(plain), ""]
    for each in metrics_of(lines):
        table = baseline_rows.by_seed(tables.by_seed(lines, each, "none", counts=True), baselines, each)
        text += [f"{METRIC_TITLES[each].capitalize()}, without intervention:", "", tables.to_markdown(table), ""]
    short = tables.mark_not_applicable(tables.short_intervention_table(lines), undefined)
    if not short.empty:
        seeds = " / ".join(map(str, tables.seeds_of(lines)))
        heading = f"{METRIC_TITLES[metric].capitalize()} under interventions, training seeds {seeds}"
        text += [f"{heading}; intervals and counts: {MORE}.", "", tables.to_markdown(short), ""]
    return [*text, *folder.pictures("rates", Subject(lines, suffix=suffix)), ""]


def protocol_tables(lines: pd.DataFrame, baselines: Baselines) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The main table, and the table of interventions, which is empty without interventions."""
    columns = {METRIC_TITLES[metric]: metric for metric in metrics_of(lines)}
    main = baseline_rows.with_baselines(tables.main_table(lines), baselines, columns)
    interventions = tables.intervention_table(lines)
    if not interventions.empty:
        interventions = baseline_rows.with_baselines(interventions, baselines, {"none": metric_of(lines)})
    return main, interventions


def _introduction(protocol: str, lines: pd.DataFrame, baselines: Baselines) -> str:
    episodes = "/".join(map(str, sorted(lines[~lines["never_fired"]]["episodes"].unique())))
    plain = lines[lines["intervention"] == "none"]
    chance, constant = plain["chance"].iloc[0], plain["best_constant"].max()
    if pd.isna(constant):
        expected = "Nothing is chosen in this task, so its metric is the success rate"
    else:
        bound = f"{chance:.2f}"
        if pd.isna(chance):
            bound = f"no bound, {baselines.unbounded}" if baselines.unbounded else "no bound"
        expected = f"Expected without memory: {bound}; always the most frequent target of this block: {constant:.2f}"
    given = "; n of the first-touch accuracy is the episodes with a touch" if metric_of(lines) == "choice" else ""
    return (
        f"Protocol `{protocol}`, {episodes} episodes per cell and condition, the same seeds in all. {expected}. "
        f"Entries: rate [95 % Wilson interval] count/n of one trained policy{given}. Episodes are never pooled over "
        "training seeds."
    )


def sets_section(
    folder: ReportFolder, cells: list[CellRecords], frame: pd.DataFrame, baselines: dict[str, Baselines]
) -> list[str]:
    """Writes the means over each set of protocols that the study evaluates as a whole.

    Args:
        folder: where the table goes.
        cells: the study's cells with their rows.
        frame: the tidy frame of the cells.
        baselines: by protocol id.

    Returns:
        Lines of the page; none without such a set.
    """
    sets = {name: protocols for cell in cells for name, protocols in cell.sets.items()}
    table = tables.set_table(frame, sets)
    if table.empty:
        return []
    table = baseline_rows.over_sets(table, sets, baselines)
    caption = "Success by set of protocols: the unweighted mean of its protocols' rates, by training seed."
    folder.write_table("sets", table)
    folder.say(f"\n{caption}\n\n{tables.to_text(table)}\n")
    return [caption, "", tables.to_markdown(table), ""]
