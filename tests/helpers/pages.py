"""Contents of pages for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from analysis.page.collect import content_of
from analysis.page.content import Content
from analysis.report.contents import Report
from helpers.rows import records
from muvla.config import tbptt
from muvla.evaluation.records import CellRecords, EpisodeRow
from sweeps.predictions import Prediction

PREDICTION = Prediction("`zero` brings the choice to chance", ("K=8", "K=2"), "zero", "to_chance", where="used")


def planned(base, variant: str, change, seed: int) -> CellRecords:
    """A cell without any result."""
    cell = records(base, variant, change, seed, 1, 0, 0)
    return replace(cell, rows={}, state="planned", provenance={}, seconds={"training": 0.0, "evaluation": 0.0})


def page_content(cells: list[CellRecords], folder: Path = Path("nowhere"), progress=None, **changes) -> Content:
    """The content of these cells' page, with contrasts of every variant against the first."""
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    given = {
        "name": "small",
        "title": "Which variants remember?",
        "command": "muvla sweep small && muvla report small",
        "notes": "A note.",
        "coverage": ("Pairs: K=8 0.67",),
        "differences": ("`K=8` against `none`: truncation 8 against 1",),
        "pairs": tuple((variant, variants[0]) for variant in variants[1:]),
    }
    return content_of(cells, Report(**(given | changes)), folder, progress)


def several(base, seeds: int = 5) -> list[CellRecords]:
    """Three variants with an intervention: one remembers, one does not, one is planned."""
    cells = []
    for seed in range(seeds):
        cells.append(_turned(records(base, "K=8", tbptt(8, 4), seed, 18 - seed % 2, 1 + seed % 2, 1)))
        cells.append(_turned(records(base, "K=2", tbptt(2, 4), seed, 6, 12, 2, errors=seed)))
        cells.append(planned(base, "K=1", tbptt(1, 4), seed))
    return cells


def _turned(cell: CellRecords) -> CellRecords:
    """The same outcomes with targets 0, 1 and 2 in turn: no constant choice is right."""

    def turned(row: EpisodeRow) -> EpisodeRow:
        if row.error:
            return row
        choice = -1 if row.choice == -1 else (row.choice + row.seed) % 3
        return replace(row, target=row.seed % 3, choice=choice)

    return replace(cell, rows={condition: [turned(row) for row in rows] for condition, rows in cell.rows.items()})
