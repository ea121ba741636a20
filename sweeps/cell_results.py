"""Everything that a report reads of one cell: from its run folder, or from a study's committed rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from muvla.config import canonical
from muvla.evaluation.catalog import declared_sets
from muvla.evaluation.protocol import chance
from muvla.evaluation.records import CellRecords, EpisodeRow, GridPoint, GridRows, Spread, TakenMeasurement, UpdateRows
from muvla.interventions import canonical_name
from muvla.probes.base import Grid, ScheduledMeasurement
from sweeps.applicability import not_applicable
from sweeps.cells import StudyCell, has_memory
from sweeps.contents import Condition
from sweeps.study import Study


def _reasons(study: Study, item: StudyCell) -> dict[str, str]:
    """Intervention → why the cell's memory cannot take it; empty for a cell without a state."""
    if not has_memory(item.cell):
        return {}
    reasons = not_applicable([item], study.every_intervention)
    return {name: by_variant[item.variant] for name, by_variant in reasons.items()}


@dataclass(frozen=True)
class MeasuredFrame:
    """The frame of a finished measurement, as the text of its CSV file, with its provenance id."""

    csv: str
    provenance: str


@dataclass(frozen=True)
class CellResults:
    """The results of one cell, under every condition that was evaluated.

    Attributes:
        train: train id; "" for a cell that has not run and whose data are unknown.
        state: state of the cell (`sweeps.ledger.Entry.state`).
        rows: (protocol id, intervention) → rows of the complete result.
        unsealed: conditions whose rows are older than seals.
        never_fired: conditions whose intervention acted in no episode.
        measurements: (probe id, protocol id) → frame.
        provenance: id → record, of the training, the rows and the measurements.
        seconds: wall time of `training` and `evaluation`.
        chunk_changes: condition → step since the cue's end → change of the predicted chunk over the episodes.
        damage: a text for every file that does not hold.
        data: digest of the training data; None where it is unknown.
        start: digest of the checkpoint that training started from.
        curve: column of the training log → values, thinned (`muvla.runs.learning_curve`).
        remarks: sentences about the cell that a report states.
    """

    train: str = ""
    state: str = "planned"
    rows: dict[Condition, list[EpisodeRow]] = field(default_factory=dict)
    unsealed: frozenset[Condition] = frozenset()
    never_fired: tuple[Condition, ...] = ()
    measurements: dict[tuple[str, str], MeasuredFrame] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "evaluation": 0.0})
    chunk_changes: dict[Condition, dict[int, Spread]] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    data: str | None = None
    start: str | None = None
    curve: dict[str, list[float | None]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def records(self, study: Study, item: StudyCell) -> CellRecords:
        """The cell for tables and figures: the results that the study declares.

        Args:
            study: the study, also with fewer conditions than the results have.
            item: the cell of the study that the results belong to.
        """
        names = ("none", *study.interventions_of(item.cell))
        declared = {(protocol.id, name) for protocol in study.protocols for name in names}
        sets = {name: members for name, members in declared_sets().items() if set(members) <= set(study.protocols)}
        grids = [probe for probe in study.probes if isinstance(probe, Grid)]
        conditions = {(protocol.id, name) for protocol, name in study.conditions(canonical(item.cell))}
        return CellRecords(
            item.variant,
            canonical(item.cell),
            self.train,
            self.state,
            {condition: rows for condition, rows in self.rows.items() if condition in declared},
            self.provenance,
            {protocol.id: chance(protocol) for protocol in study.protocols},
            self.seconds,
            {name: tuple(protocol.id for protocol in members) for name, members in sets.items()},
            grids=tuple(self._grid_rows(grid) for grid in grids),
            measurements=tuple(self._taken(study.measurements_of(item.cell))),
            never_fired=tuple(condition for condition in self.never_fired if condition in declared),
            chunk_changes={at: change for at, change in self.chunk_changes.items() if at in declared},
            damage=self.damage,
            unsealed=sum(condition in self.unsealed for condition in self.rows if condition in conditions),
            curve=self.curve,
            remarks=self.remarks,
            not_applicable=_reasons(study, item),
            at_updates=self._at_updates(study, item),
        )

    def _at_updates(self, study: Study, item: StudyCell) -> UpdateRows | None:
        learning = study.time_to_learn
        if learning is None:
            return None
        planned = learning.updates_of(item.cell)
        rows = {update: self.rows.get((learning.protocols[update].id, "none")) for update in planned}
        return UpdateRows(learning.protocol.id, planned, {update: each for update, each in rows.items() if each})

    def _grid_rows(self, grid: Grid) -> GridRows:
        points = []
        for point in grid.points:
            condition = point.protocol.id, canonical_name(point.intervention)
            rows, never = self.rows.get(condition, []), condition in self.never_fired
            points.append(GridPoint(dict(point.coordinates), *condition, chance(point.protocol), rows, never))
        return GridRows(grid.id, grid.x, grid.y, grid.curve, grid.notes, tuple(points))

    def _taken(self, scheduled: Iterable[ScheduledMeasurement]) -> list[TakenMeasurement]:
        taken = []
        for each in scheduled:
            frame, measurement = self.measurements.get((each.id, each.protocol.id)), each.measurement
            if frame is not None:
                columns = (measurement.x, measurement.y, measurement.curve, measurement.low, measurement.high)
                identity = (each.id, each.protocol.id)
                facts = (measurement.chance, len(each.seeds), frame.csv, frame.provenance, measurement.share)
                taken.append(TakenMeasurement(*identity, *columns, *facts))
        return taken
