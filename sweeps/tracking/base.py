"""The contract of a tracker: it shows studies and cells in another tool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StudyFacts:
    """A study for a tracker.

    Attributes:
        name: the study's name.
        title: its question.
        notes: its notes in Markdown.
        code: version of the code.
        commit: git commit of the code; None outside a checkout.
        page: folder of the study's report, if it has been written; None otherwise.
    """

    name: str
    title: str
    notes: str
    code: str
    commit: str | None
    page: Path | None = None


@dataclass(frozen=True)
class Point:
    """The readings of one line of the training log.

    Attributes:
        update: number of the update.
        time: seconds since the epoch.
        values: name → number. Names with a `/` after `training-detail` are measurements beside the loss.
    """

    update: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class CellFacts:
    """A cell for a tracker, as its run folder is now.

    Attributes:
        train: train id.
        start: how many times the cell was started again from nothing; with `train` it names a run.
        label: variant and seed, for people.
        state: state of the cell: `running`, `partial`, `done`, `failed`, `not a measurement` or `damaged`.
        factors: the values that a reader compares first: variant, seed, K, m, α, labels, H.
        fields: every dotted field of the canonical cell.
        began: time of the first write, seconds since the epoch.
        ended: time of the last write.
        curve: the training log.
        results: `protocol.vN/intervention/metric` → number.
        files: files that belong to the cell: rows, configuration, log, videos.
        data: name and content hash of the dataset.
        error: why the cell failed.
    """

    train: str
    start: int
    label: str
    state: str
    factors: Mapping[str, str]
    fields: Mapping[str, Any]
    began: float
    ended: float
    curve: tuple[Point, ...] = ()
    results: Mapping[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    data: tuple[str, str] = ("", "")
    error: str = ""

    @property
    def is_over(self) -> bool:
        """True if nothing works on the cell now."""
        return self.state != "running"


class Tracker(ABC):
    """Shows cells in another tool.

    A tracker is listed in `sweeps.tracking.registry`, or in the entry-point group `muvla.trackers` of another package.
    docs/extending/tracker.md has a worked example, and tests/test_tracker_contract.py checks every registered tracker.
    An exception of a tracker switches the tracker off for the rest of the sweep, with a warning.
    """

    def __init__(self, root: Path):
        """Keeps the folder of all runs; opens nothing yet."""
        self.root = root

    @abstractmethod
    def open_study(self, study: StudyFacts) -> None:
        """Begins a sweep of the study. Called once, before any cell, also by two sweeps of one study at once."""

    @abstractmethod
    def outdated(self, cells: Mapping[str, int]) -> set[str]:
        """The train ids among finished cells whose record is missing, not finished, or incomplete.

        Args:
            cells: train id → number of results of a finished cell.
        """

    @abstractmethod
    def log_cell(self, cell: CellFacts) -> None:
        """Brings the record of a cell up to date.

        Called while the cell runs, when the cell ends, and for cells of earlier sweeps that `outdated` names. A second
        call with the same facts changes nothing. A record that says failed becomes finished once the cell is done.
        """
