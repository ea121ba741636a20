"""Writes the page of results that were read, from run folders or from committed rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.intervention_frames import labelled
from analysis.page.collect import content_of
from analysis.page.films import load_films
from analysis.page.filmstrip import load_filmstrip
from analysis.page.render import INSIDE, write_page
from analysis.report.contents import Report
from sweeps.study_results import StudyResults


def write_results_page(
    read: Sequence[StudyResults],
    report: Report,
    folder: Path,
    pictures: Path,
    progress: Mapping[str, tuple[int, str]] | None = None,
) -> Path:
    """Writes `index.html`; returns the file.

    Args:
        read: the results.
        report: the contents besides the rows.
        folder: folder of the page.
        pictures: folder that holds the filmstrip and the recorded episodes, as far as there are any.
        progress: train id → (update of the newest checkpoint, error of a failed cell).
    """
    cells = [cell for each in read for cell in each.records]
    labels = {cell.train: (label, cell.cell.seed) for label, cell in labelled(cells) if cell.train}
    content = content_of(
        cells,
        report,
        folder,
        progress,
        load_filmstrip(pictures),
        load_films(pictures, labels, INSIDE, folder),
        time.strftime("%d %B %Y, %H:%M"),
    )
    return write_page(content, folder)
