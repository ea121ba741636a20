"""What is done and what is left of a study, read off the run folders. Optuna and MLflow are views; this is the
truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from muvla.config import canonical
from muvla.data.collect import collect
from muvla.data.mixture import join, open_data
from muvla.data.store import EpisodeStore, is_sealed, open_store, store_path
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from muvla.evaluation.action_chunks import chunk_change
from muvla.evaluation.protocol import SETS, Protocol, chance
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
from muvla.runs.baselines import measured
from muvla.runs.run import NOT_A_MEASUREMENT, Run
from sweeps.study import Study, StudyCell, conditions, reads, train_id


@dataclass(frozen=True)
class Entry:
    """A study cell with its folder."""

    study: Study
    item: StudyCell
    run: Run

    @property
    def conditions(self) -> list[tuple[Protocol, str]]:
        return list(conditions(self.study, self.item.cell))

    def missing(self, retry_errors: bool = False) -> list[tuple[Protocol, str]]:
        """(protocol, intervention) of the results that are not complete, without those that are known to have none."""
        return [
            (p, i)
            for p, i in self.conditions
            if not self.run.has_result(p, i, without_errors=retry_errors) and not self.run.never_fired(p, i)
        ]

    @property
    def never_fired(self) -> tuple[tuple[str, str], ...]:
        """(protocol id, intervention) of those that acted in no episode, and so have no result."""
        return tuple((p.id, i) for p, i in self.conditions if self.run.never_fired(p, i))

    @property
    def missing_reads(self) -> list[ScheduledMeasurement]:
        return [one for one in reads(self.study, self.item.cell) if self.run.reading_meta(one) is None]

    @property
    def state(self) -> str:
        """done, failed, not a measurement, running, partial or planned."""
        if self.run.failure:
            return self.run.failure["kind"]
        if not (self.run.folder / "run.json").exists():
            return "planned"
        if not self.missing() and not self.missing_reads:
            return "done"
        return "running" if self.run.owner else "partial"

    def complete_rows(self) -> dict[tuple[str, str], list[EpisodeRow]]:
        """(protocol id, intervention) → rows, of the results that are complete. A cell marked as no measurement has
        none: what broke speaks against everything that was computed with it. One that merely failed keeps what it
        has."""
        if (self.run.failure or {}).get("kind") == NOT_A_MEASUREMENT:
            return {}
        missing = {(p.id, i) for p, i in self.missing()} | set(self.never_fired)
        return {(p.id, i): self.run.result_rows(p, i) for p, i in self.conditions if (p.id, i) not in missing}

    def summaries(self) -> dict[tuple[str, str], Summary]:
        return {condition: summarise(rows) for condition, rows in self.complete_rows().items()}

    def records(self) -> CellRecords:
        """The cell for tables and figures."""
        rows, readings, study = self.complete_rows(), self._readings(), self.study
        own = {(p.id, i) for p in study.protocols for i in ("none", *study.interventions)}
        silent = self.never_fired if rows else ()
        return CellRecords(
            self.item.variant,
            canonical(self.item.cell),
            self.run.train,
            self.state,
            {condition: found for condition, found in rows.items() if condition in own},
            self.run.provenance([*chain.from_iterable(rows.values()), *readings]) if rows or readings else {},
            {p.id: chance(p) for p in study.protocols},
            self.run.seconds(),
            {name: tuple(p.id for p in one) for name, one in SETS.items() if set(one) <= set(study.protocols)},
            grids=tuple(_grid_rows(one, rows, silent) for one in study.probes if isinstance(one, Grid)),
            readings=readings,
            never_fired=tuple(condition for condition in silent if condition in own),
            chunk_changes=self._chunk_changes(rows, own),
        )

    def _chunk_changes(self, rows: dict[tuple[str, str], list[EpisodeRow]], own: set) -> dict:
        """Of its own conditions, where chunks were kept of both."""
        found, folder = {}, self.run.folder / "chunks"
        for (protocol, name), of_result in rows.items():
            plain = rows.get((protocol, "none"))
            if name != "none" and plain and of_result and (protocol, name) in own:
                change = chunk_change(folder, plain[0].result, of_result[0].result, of_result)
                found |= {(protocol, name): change} if change else {}
        return found

    def _readings(self) -> tuple[TakenMeasurement, ...]:
        """Those that are finished, of a cell whose numbers count."""
        if (self.run.failure or {}).get("kind") == NOT_A_MEASUREMENT:
            return ()
        return tuple(
            TakenMeasurement(
                one.id,
                one.protocol.id,
                one.reading.x,
                one.reading.y,
                one.reading.curve,
                one.reading.low,
                one.reading.high,
                one.reading.chance,
                len(one.seeds),
                self.run.frame_file(one),
                meta["provenance"],
                one.reading.share,
            )
            for one in reads(self.study, self.item.cell)
            if (meta := self.run.reading_meta(one)) is not None
        )


def _grid_rows(
    grid: Grid, rows: dict[tuple[str, str], list[EpisodeRow]], silent: tuple[tuple[str, str], ...]
) -> GridRows:
    points = []
    for p in grid.points:
        at = p.protocol.id, canonical_name(p.intervention)
        points.append(GridPoint(dict(p.coordinates), *at, chance(p.protocol), rows.get(at, []), at in silent))
    return GridRows(grid.id, grid.x, grid.y, grid.curve, grid.notes, tuple(points))


class Ledger:
    """The run folders under `root` and the datasets under `data`."""

    def __init__(self, root: Path, data: Path):
        self.root, self.data = root, data

    def stores(
        self, study: Study, progress: Callable[[int, int], None] = lambda *_: None, jobs: int | None = None
    ) -> dict[str, EpisodeStore]:
        """The data of the study by variant, collected if need be; `jobs` bounds the simulator processes. Raises
        MuvlaError, before anything is collected, for an import that is not there or does not tell what a variant's
        labels need."""
        self._require_imports(study)
        mixtures = {item.variant: item.cell.data.datasets for item in study.cells()}
        specs = dict.fromkeys(spec for datasets in mixtures.values() for spec in datasets)
        stores = {spec: collect(spec, self.data, progress, jobs) for spec in specs}
        presented = {datasets: join([stores[spec] for spec in datasets]) for datasets in mixtures.values()}
        return {variant: presented[datasets] for variant, datasets in mixtures.items()}

    def has_data(self, study: Study) -> bool:
        """Whether nothing is left to collect. Raises MuvlaError for an import that is not there, as no collection makes
        it, or that does not tell what a variant's labels need."""
        self._require_imports(study)
        specs = {spec for item in study.cells() for spec in item.cell.data.datasets}
        return all(is_sealed(store_path(self.data, spec)) for spec in specs)

    def opened(self, study: Study) -> dict[str, EpisodeStore]:
        """The data that are already there, by variant; raises MuvlaError for one that is not."""
        self._require_imports(study)
        return {item.variant: open_data(self.data, item.cell.data) for item in study.cells()}

    def baselines(self, study: Study) -> dict[str, Baselines]:
        """By protocol id: what its trained cells lie between, as far as it was measured."""
        return {one.id: measured(self.root, self.data, one) for one in study.protocols}

    def _require_imports(self, study: Study) -> None:
        imports = {(i.variant, i.cell.data.labels, spec) for i in study.cells() for spec in i.cell.data.datasets}
        for variant, labels, spec in sorted(imports, key=str):
            if spec.source is not None:
                store = open_store(self.data, spec)
                if labels != "recorded":
                    store.require_executed(f"variant {variant!r}, data.labels {labels}")

    def entries(self, study: Study, stores: dict[str, EpisodeStore]) -> list[Entry]:
        """Raises MuvlaError if imported frames have another size than a protocol's."""
        _require_same_frames(study, stores)
        return [
            Entry(study, item, Run(self.root, self.data, train_id(item.cell, stores[item.variant])))
            for item in study.cells()
        ]


def _require_same_frames(study: Study, stores: dict[str, EpisodeStore]) -> None:
    """What collected frames have is told by their configuration, and checked with it; an import has what it has."""
    for variant, part in ((variant, part) for variant, store in stores.items() for part in store.parts):
        shape = part["images"].shape[2:4]
        for one in study.every_protocol:
            camera = one.image_size or task_info(one.task.name).camera
            if part.spec.source is not None and shape != (camera, camera):
                raise MuvlaError(
                    f"study {study.name}, variant {variant!r}: data.dataset",
                    got=f"imported frames of {shape[0]}×{shape[1]}",
                    expected=f"{camera}×{camera}, those of protocol {one.id}",
                    remedy="import them at that size (--image-size), or choose another protocol",
                )
