"""The files of a cell that a study reads: results, measurements, the failure mark, and damage.

A damaged file costs its own result alone. It is named, and enters no table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow
from muvla.probes.base import ScheduledMeasurement
from muvla.runs.probe import measurement_meta
from muvla.runs.results import Result, read_result
from muvla.runs.run import NOT_A_MEASUREMENT, Run
from muvla.runs.status import updates_done

DAMAGED = "damaged"  # state of a cell with a file that does not hold
Condition = tuple[str, str]  # protocol id, intervention


@dataclass
class CellContents:
    """The files of one cell, read once.

    Attributes:
        results: (protocol, intervention) → result, without the damaged results.
        measurements: the measurements with their meta data; None if a measurement is not finished.
        failure: the failure mark, or None.
        updates: update of the newest checkpoint; 0 without a checkpoint.
        damage: an error for every file that does not hold.
        unreadable_mark: there is a failure mark that nobody can read, so no number of the cell counts.
    """

    results: dict[tuple[Protocol, str], Result] = field(default_factory=dict)
    measurements: list[tuple[ScheduledMeasurement, dict[str, Any] | None]] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    updates: int = 0
    damage: list[MuvlaError] = field(default_factory=list)
    unreadable_mark: bool = False

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the block's error about a file as damage."""
        try:
            yield
        except MuvlaError as error:
            self.damage.append(error)

    @property
    def counts(self) -> bool:
        """True if the cell's numbers count. After a broken invariant none does; a failed cell keeps its results."""
        return not self.unreadable_mark and (self.failure or {}).get("kind") != NOT_A_MEASUREMENT

    def missing(self, retry_errors: bool = False) -> list[tuple[Protocol, str]]:
        """(protocol, intervention) of the incomplete results; with `retry_errors` also of results with errors."""
        return [
            condition
            for condition, result in self.results.items()
            if not (result.is_complete and not (retry_errors and result.has_errors)) and not result.never_fired
        ]

    @property
    def missing_measurements(self) -> list[ScheduledMeasurement]:
        return [scheduled for scheduled, meta in self.measurements if meta is None]

    @property
    def never_fired(self) -> tuple[Condition, ...]:
        """The conditions whose intervention acted in no episode."""
        return tuple((protocol.id, name) for (protocol, name), result in self.results.items() if result.never_fired)

    def complete_rows(self) -> dict[Condition, list[EpisodeRow]]:
        """The rows of every complete result; none for a cell that is not a measurement."""
        return {condition: result.rows for condition, result in self._complete().items()}

    @property
    def unsealed(self) -> set[Condition]:
        """The complete results that are older than seals."""
        return {condition for condition, result in self._complete().items() if not result.is_sealed}

    def _complete(self) -> dict[Condition, Result]:
        return {
            (protocol.id, name): result
            for (protocol, name), result in self.results.items()
            if self.counts and result.is_complete and not result.never_fired
        }


def read_contents(
    run: Run, conditions: Iterable[tuple[Protocol, str]], measurements: Iterable[ScheduledMeasurement]
) -> CellContents:
    """Read the files of a cell.

    Args:
        run: the cell's run.
        conditions: (protocol, intervention) of the results.
        measurements: the scheduled measurements.
    """
    if not run.folder.is_dir():  # a plan has thousands of cells without a folder
        nothing = Result([], is_complete=False, is_sealed=False)
        return CellContents(dict.fromkeys(conditions, nothing), [(scheduled, None) for scheduled in measurements])
    contents = CellContents(unreadable_mark=True)
    with contents.collecting():
        contents.failure = run.failure
        contents.unreadable_mark = False
    with contents.collecting():
        contents.updates = updates_done(run)
    for protocol, name in conditions:
        with contents.collecting():
            contents.results[protocol, name] = read_result(run, protocol, name)
    for scheduled in measurements:
        with contents.collecting():
            contents.measurements.append((scheduled, measurement_meta(run, scheduled)))
    return contents
