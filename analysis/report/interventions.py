"""The sections of a report on interventions and probes: verdicts, paired differences, grids and measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from analysis import differences, intervention_tables, tables
from analysis.differences import difference_frame, difference_table
from analysis.figures.base import Subject
from analysis.frames import file_names, file_stems
from analysis.intervention_frames import chunk_frame, grid_frame, grids, measurement_frames, quantities_of
from analysis.paired import CONFIDENCE, MARGIN, QUANTITY_TITLES
from analysis.report.folder import ReportFolder
from analysis.report.rates import MORE
from analysis.verdicts import verdict_frame, verdict_table
from muvla.evaluation.records import CellRecords
from sweeps.predictions import Prediction

WORDS = (
    "Paired difference: the rate with the intervention minus the rate without it, over the same episodes of one "
    f"trained policy, with the {CONFIDENCE:.0%} interval of Newcombe's method 10 and the number of pairs. A difference "
    f"is null if its interval lies inside ±{MARGIN:.2f}. docs/causality.md defines quantities, verdicts and how seeds "
    "combine."
)


REGISTRATION = (
    "A registered prediction is in the study's register since the given time, before the study had a row. A prediction "
    "is post hoc if it came to the register after rows, and not registered if the rows are older than the register."
)


def verdict_section(
    folder: ReportFolder,
    cells: list[CellRecords],
    predictions: tuple[Prediction, ...],
    registrations: Mapping[Prediction, str],
) -> list[str]:
    """Writes the verdicts on the study's predictions; empty without predictions.

    Args:
        folder: where files go.
        cells: the cells with their rows.
        predictions: the study's predictions.
        registrations: prediction → whether it was registered before its rows.
    """
    frame = verdict_frame(cells, predictions, registrations)
    if frame.empty:
        return []
    folder.write_csv("verdicts.csv", frame)
    table = verdict_table(frame)
    folder.write("verdicts.md", tables.to_markdown(table) + "\n")
    folder.say(f"\nPredictions:\n\n{tables.to_text(table.drop(columns='prediction'))}\n")
    return [f"{REGISTRATION} Predictions and their verdicts:", "", tables.to_markdown(table), ""]


def paired_section(folder: ReportFolder, pairs: pd.DataFrame) -> list[str]:
    """Writes the paired differences of every protocol; empty without interventions.

    Args:
        folder: where files go.
        pairs: `analysis.intervention_frames.paired_frame` of the cells.
    """
    if pairs.empty:
        return []
    folder.write_csv("paired.csv", pairs)
    text, suffixes = [WORDS, ""], file_stems(pairs["protocol"])
    for protocol, lines in pairs.groupby("protocol", sort=False):
        text += [*_differences(protocol, lines, folder.undefined)]
        text += [*folder.pictures("paired", Subject(lines, suffix=suffixes[protocol])), ""]
    return text


def _differences(protocol: str, lines: pd.DataFrame, undefined: Collection[tuple[str, str]]) -> list[str]:
    """The first quantity with its intervals, and the other quantities by their differences alone."""
    quantity, *others = quantities_of(lines)
    table = intervention_tables.difference_table(lines, quantity)
    text = [f"Paired difference of {QUANTITY_TITLES[quantity]}, `{protocol}`:", "", tables.to_markdown(table), ""]
    seeds = " / ".join(map(str, tables.seeds_of(lines)))
    for other in others:
        table = tables.mark_not_applicable(intervention_tables.short_difference_table(lines, other), undefined)
        heading = f"Paired difference of {QUANTITY_TITLES[other]}, `{protocol}`, training seeds {seeds}"
        text += [f"{heading}; intervals: {MORE}.", "", tables.to_markdown(table), ""]
    follow = intervention_tables.short_follow_table(lines)
    if not follow.empty:
        heading = f"Donor-following rate (minus that of the same episodes without it), `{protocol}`"
        text += [f"{heading}; the objects touched first: {MORE}.", "", tables.to_markdown(follow), ""]
    return text


def difference_section(folder: ReportFolder, cells: list[CellRecords]) -> list[str]:
    """Writes interventions against their shams and against a variant whose memory carries nothing; empty without."""
    frame = difference_frame(cells)
    if frame.empty:
        return []
    folder.write_csv("differences.csv", frame)
    text = [differences.WORDS, ""]
    for protocol, lines in frame.groupby("protocol", sort=False):
        text += [f"Differences of differences, `{protocol}`:", ""]
        text += [tables.to_markdown(difference_table(lines)), ""]
    return text


def chunk_section(folder: ReportFolder, cells: list[CellRecords]) -> list[str]:
    """Writes how far interventions move the predicted chunk; empty where no chunks were kept."""
    frame = chunk_frame(cells)
    if frame.empty:
        return []
    folder.write_csv("chunks.csv", frame)
    suffixes, text = file_stems(frame["protocol"]), []
    for protocol, lines in frame.groupby("protocol", sort=False):
        text += [*folder.pictures("chunks", Subject(lines, suffix=suffixes[protocol])), ""]
    return text


def grid_section(folder: ReportFolder, cells: list[CellRecords]) -> list[str]:
    """Writes every grid among the probes; empty without one."""
    text, by_id = [], grids(cells)
    names = file_names(by_id)
    for id, grid in by_id.items():
        text += [f"Probe `{id}`. {grid.notes}".strip(), ""]
        frame = grid_frame(cells, id)
        if frame.empty:
            text += ["Not run.", ""]
            continue
        folder.write_csv(f"probe-{names[id]}.csv", frame)
        text += [*folder.pictures("grid", Subject(frame, suffix=f"-{names[id]}", probe=grid)), ""]
    return text


def measurement_section(folder: ReportFolder, cells: list[CellRecords]) -> list[str]:
    """Writes every measurement among the probes; empty without one."""
    taken = {(each.id, each.protocol): each for cell in cells for each in cell.measurements}
    names, protocols = file_names(id for id, _ in taken), file_names(protocol for _, protocol in taken)
    text = []
    for (id, protocol), frame in measurement_frames(cells).items():
        suffix, measurement = f"-{names[id]}-{protocols[protocol]}", taken[id, protocol]
        folder.write_csv(f"probe{suffix}.csv", frame)
        text += [f"Probe `{id}`, {measurement.episodes} episodes of `{protocol}`:", ""]
        text += [*folder.pictures("measurement", Subject(frame, suffix=suffix, probe=measurement)), ""]
    return text
