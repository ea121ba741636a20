"""A tracker without any tool: a line of JSON for every change of a cell, in `tracking/STUDY.jsonl` of the runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from muvla.utils.io import append_line, read_lines
from sweeps.tracking.base import CellFacts, StudyFacts, Tracker


class JsonLinesTracker(Tracker):
    """Appends a line when something of a cell has changed."""

    def open_study(self, study: StudyFacts) -> None:
        self.file = self.root / "tracking" / f"{study.name}.jsonl"
        lines = read_lines(self.file)
        self.latest = {(line["train"], line["start"]): line for line in lines if "train" in line}
        if not lines:
            append_line(self.file, {"study": study.name, "title": study.title, "code": study.code})

    def outdated(self, cells: Mapping[str, int]) -> set[str]:
        there = {train: len(line["results"]) for (train, _), line in self.latest.items() if line["state"] == "done"}
        return {train for train, results in cells.items() if there.get(train) != results}

    def log_cell(self, cell: CellFacts) -> None:
        facts: dict[str, Any] = asdict(cell) | {"files": [str(file) for file in cell.files], "data": list(cell.data)}
        facts["curve"] = facts["curve"][-1:]  # the training log holds the others
        facts["curve"] = [dict(point, values=dict(point["values"])) for point in facts["curve"]]
        if self.latest.get((cell.train, cell.start)) != facts:
            append_line(self.file, facts)
            self.latest[cell.train, cell.start] = facts
