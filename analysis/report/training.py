"""The section of a report on the error at the first step of the decision, in training and on held-out episodes."""

from __future__ import annotations

from analysis.figures.base import Subject
from analysis.report.folder import ReportFolder
from analysis.training_log import training_frame
from muvla.evaluation.records import CellRecords


def training_section(folder: ReportFolder, cells: list[CellRecords]) -> list[str]:
    """Writes first-decision.csv and its figures; empty where no cell has held-out demonstrations."""
    frame = training_frame(cells)
    text = [] if frame.empty else folder.pictures("training", Subject(frame))
    if not text:
        return []
    folder.write_csv("first-decision.csv", frame)
    words = (
        "The first step of the decision alone needs sight and memory: later steps continue the arm's own pose. Where "
        "the error falls in training and not on held-out demonstrations, the policy learns its demonstrations by heart."
    )
    return ["## Error at the first decision step", "", words, "", *text, ""]
