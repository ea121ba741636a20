"""The state of a study, read from the run folders: finished and missing results.

Optuna and MLflow are views of these folders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from muvla.config import canonical
from muvla.data.collect import collect
from muvla.data.mixture import join, open_data
from muvla.data.store import EpisodeStore, get_store_path, is_sealed
from muvla.errors import MuvlaError
from muvla.evaluation.action_chunks import chunk_change
from muvla.evaluation.catalog import declared_sets
from muvla.evaluation.protocol import Protocol, chance
from muvla.evaluation.records import (
    Baselines,
    CellRecords,
    EpisodeRow,
    GridPoint,
    GridRows,
    Summary,
    TakenMeasurement,
    summarise,
)
from muvla.interventions import canonical_name
from muvla.probes.base import Grid, ScheduledMeasurement
from muvla.runs.baselines import finished_baselines
from muvla.runs.probe import frame_file, measurement_meta
from muvla.runs.run import Run
from sweeps.cells import StudyCell, train_id
from sweeps.contents import DAMAGED, CellContents, Condition, read_contents
from sweeps.imports import require_imports, require_same_frames
from sweeps.study import Study


@dataclass(frozen=True)
class Entry:
    """A cell of a study with its run folder."""

    study: Study
    item: StudyCell
    run: Run

    @property
    def conditions(self) -> list[tuple[Protocol, str]]:
        return list(self.study.conditions(self.item.cell))

    def read(self) -> CellContents:
        """Everything that the run folder holds for this study, read once."""
        return read_contents(self.run, self.conditions, self.study.measurements_of(self.item.cell))

    @property
    def never_fired(self) -> tuple[Condition, ...]:
        """The conditions whose intervention acted in no episode."""
        return self.read().never_fired

    def missing(self, retry_errors: bool = False) -> list[tuple[Protocol, str]]:
        """(protocol, intervention) of the incomplete results. An intervention that never fired has no result and is not
        missing; neither is a damaged result."""
        return self.read().missing(retry_errors)

    @property
    def missing_measurements(self) -> list[ScheduledMeasurement]:
        """Raises MuvlaError for a damaged measurement, and for a measurement under another protocol."""
        scheduled = self.study.measurements_of(self.item.cell)
        return [measurement for measurement in scheduled if measurement_meta(self.run, measurement) is None]

    @property
    def damage(self) -> list[MuvlaError]:
        """An error for every file of the cell that does not hold."""
        return self.read().damage

    @property
    def state(self) -> str:
        """done, failed, not a measurement, damaged, running, partial or planned."""
        return self._state(self.read())

    def _state(self, contents: CellContents) -> str:
        if contents.failure:
            return contents.failure["kind"]
        if contents.damage:
            return DAMAGED
        if not self.run.is_created:
            return "planned"
        if not contents.missing() and not contents.missing_measurements:
            return "done"
        return "running" if self.run.owner else "partial"

    def complete_rows(self) -> dict[Condition, list[EpisodeRow]]:
        """The rows of every complete result; none for a cell that is not a measurement."""
        return self.read().complete_rows()

    def summaries(self) -> dict[Condition, Summary]:
        return {condition: summarise(rows) for condition, rows in self.complete_rows().items()}

    def records(self) -> CellRecords:
        """The cell for tables and figures. A damaged result has no rows here; `damage` names its file."""
        contents, study = self.read(), self.study
        rows, measurements = contents.complete_rows(), _taken_of(self.run, contents)
        provenance: dict[str, dict[str, Any]] = {}
        seconds = {"training": 0.0, "evaluation": 0.0}
        with contents.collecting():
            if rows or measurements:
                used = [*chain.from_iterable(rows.values()), *measurements]
                provenance = self.run.provenance(used)
            seconds = self.run.seconds()
        if (rows or measurements) and not provenance:  # numbers of unknown origin are in no table
            rows, measurements = {}, ()
        declared = {(protocol.id, name) for protocol in study.protocols for name in ("none", *study.interventions)}
        silent = contents.never_fired if rows else ()
        sets = {name: members for name, members in declared_sets().items() if set(members) <= set(study.protocols)}
        of_study = {condition: result for condition, result in rows.items() if condition in declared}
        chunk_changes: dict[Condition, dict[int, np.ndarray]] = {}
        with contents.collecting():
            chunk_changes = self._chunk_changes(of_study)
        return CellRecords(
            self.item.variant,
            canonical(self.item.cell),
            self.run.train,
            self._state(contents),
            of_study,
            provenance,
            {protocol.id: chance(protocol) for protocol in study.protocols},
            seconds,
            {name: tuple(protocol.id for protocol in members) for name, members in sets.items()},
            grids=tuple(_grid_rows(probe, rows, silent) for probe in study.probes if isinstance(probe, Grid)),
            measurements=measurements,
            never_fired=tuple(condition for condition in silent if condition in declared),
            chunk_changes=chunk_changes,
            damage=tuple(str(error) for error in contents.damage),
            unsealed=sum(condition in contents.unsealed for condition in rows),
        )

    def _chunk_changes(self, rows: dict[Condition, list[EpisodeRow]]) -> dict[Condition, dict[int, np.ndarray]]:
        """How each intervention changes the chunks of the plain run, where the chunks of both were kept."""
        changes, folder = {}, self.run.folder / "chunks"
        for (protocol, name), of_result in rows.items():
            plain = rows.get((protocol, "none"))
            if name != "none" and plain and of_result:
                change = chunk_change(folder, plain[0].result, of_result[0].result, of_result)
                if change:
                    changes[protocol, name] = change
        return changes


def _taken_of(run: Run, contents: CellContents) -> tuple[TakenMeasurement, ...]:
    """The finished measurements; none for a cell that is not a measurement."""
    if not contents.counts:
        return ()
    return tuple(_taken(run, item, meta) for item, meta in contents.measurements if meta is not None)


def _taken(run: Run, scheduled: ScheduledMeasurement, meta: dict) -> TakenMeasurement:
    measurement = scheduled.measurement
    return TakenMeasurement(
        scheduled.id,
        scheduled.protocol.id,
        measurement.x,
        measurement.y,
        measurement.curve,
        measurement.low,
        measurement.high,
        measurement.chance,
        len(scheduled.seeds),
        frame_file(run, scheduled),
        meta["provenance"],
        measurement.share,
    )


def _grid_rows(grid: Grid, rows: dict[Condition, list[EpisodeRow]], silent: tuple[Condition, ...]) -> GridRows:
    points = []
    for point in grid.points:
        condition = point.protocol.id, canonical_name(point.intervention)
        of_point, never = rows.get(condition, []), condition in silent
        points.append(GridPoint(dict(point.coordinates), *condition, chance(point.protocol), of_point, never))
    return GridRows(grid.id, grid.x, grid.y, grid.curve, grid.notes, tuple(points))


class Ledger:
    """The run folders under `root` and the datasets under `data`."""

    def __init__(self, root: Path, data: Path):
        self.root, self.data = root, data

    def stores(
        self, study: Study, progress: Callable[[int, int], None] = lambda *_: None, jobs: int | None = None
    ) -> dict[str, EpisodeStore]:
        """Variant → its data, collected where they are missing.

        Args:
            study: the study.
            progress: called with (episodes collected, episodes in all).
            jobs: simulator processes at most; None takes one per core.

        Raises:
            MuvlaError: before anything is collected, for an import that does not exist or lacks what the labels of a
                variant need.
        """
        require_imports(study, self.data)
        mixtures = {item.variant: item.cell.data.datasets for item in study.cells()}
        specs = dict.fromkeys(spec for datasets in mixtures.values() for spec in datasets)
        stores = {spec: collect(spec, self.data, progress, jobs) for spec in specs}
        presented = {datasets: join([stores[spec] for spec in datasets]) for datasets in mixtures.values()}
        return {variant: presented[datasets] for variant, datasets in mixtures.items()}

    def has_data(self, study: Study) -> bool:
        """True if nothing is left to collect. Raises MuvlaError for an import that does not exist or lacks what the
        labels of a variant need: no collection makes up for that."""
        require_imports(study, self.data)
        specs = {spec for item in study.cells() for spec in item.cell.data.datasets}
        return all(is_sealed(get_store_path(self.data, spec)) for spec in specs)

    def opened(self, study: Study) -> dict[str, EpisodeStore]:
        """Variant → its data; raises MuvlaError for data that are not collected."""
        require_imports(study, self.data)
        return {item.variant: open_data(self.data, item.cell.data) for item in study.cells()}

    def baselines(self, study: Study) -> dict[str, Baselines]:
        """Protocol id → what was measured of its baselines."""
        return {protocol.id: finished_baselines(self.root, self.data, protocol) for protocol in study.protocols}

    def entries(self, study: Study, stores: dict[str, EpisodeStore]) -> list[Entry]:
        """Every cell with its run folder. Raises MuvlaError if imported frames differ in size from a protocol's."""
        require_same_frames(study, stores)
        return [
            Entry(study, item, Run(self.root, self.data, train_id(item.cell, stores[item.variant])))
            for item in study.cells()
        ]
