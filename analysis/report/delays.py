"""The section of a report on accuracy against delay."""

from __future__ import annotations

from analysis.delays import delay_frame
from analysis.figures.base import Subject
from analysis.frames import file_stems
from analysis.report.folder import ReportFolder
from muvla.evaluation.records import CellRecords


def delay_section(folder: ReportFolder, cells: list[CellRecords]) -> list[str]:
    """Writes delays.csv and its figures; empty where no episode has a delay."""
    frame = delay_frame(cells)
    if frame.empty:
        return []
    folder.write_csv("delays.csv", frame)
    text, suffixes = [], file_stems(frame["protocol"])
    for protocol, lines in frame.groupby("protocol", sort=False):
        text += folder.pictures("delays", Subject(lines, suffix=suffixes[protocol]))
    return ["## Accuracy against delay", "", *text, ""] if text else []
