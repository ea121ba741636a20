"""The sections of a report after the rates: contrasts, published numbers, verdicts, interventions, probes and costs."""

from __future__ import annotations

import pandas as pd

from analysis.contrasts import contrast_frame, contrast_sections
from analysis.report.beside import beside_section
from analysis.report.contents import Report
from analysis.report.costs import cost_section
from analysis.report.delays import delay_section
from analysis.report.folder import ReportFolder
from analysis.report.interventions import (
    chunk_section,
    difference_section,
    grid_section,
    measurement_section,
    paired_section,
    verdict_section,
)
from analysis.report.learning import learning_section
from analysis.report.published import published_section
from analysis.report.training import training_section
from analysis.time_to_learn import update_frame
from muvla.evaluation.records import CellRecords


def evidence_sections(
    folder: ReportFolder, cells: list[CellRecords], frame: pd.DataFrame, pairs: pd.DataFrame, report: Report
) -> list[str]:
    """Writes the files of these sections.

    Args:
        folder: where files go.
        cells: the cells with their rows.
        frame: the tidy frame of the cells.
        pairs: `analysis.intervention_frames.paired_frame` of the cells.
        report: texts and inputs besides the rows.

    Returns:
        Lines of Markdown.
    """
    text: list[str] = []
    updates = update_frame(cells, report.baselines)
    contrasts = contrast_frame(frame, report.contrasts, report.pairs, updates)
    if len(contrasts):
        folder.write_csv("contrasts.csv", contrasts)
        text += contrast_sections(contrasts)
    text += learning_section(folder, updates)
    text += published_section(folder, frame, report.protocols)
    text += beside_section(folder, frame, report.others)
    text += verdict_section(folder, cells, report.predictions, report.registrations)
    text += paired_section(folder, pairs)
    text += difference_section(folder, cells)
    text += chunk_section(folder, cells)
    text += grid_section(folder, cells)
    text += measurement_section(folder, cells)
    text += training_section(folder, cells)
    text += delay_section(folder, cells)
    return text + cost_section(folder, report.costs, frame)
