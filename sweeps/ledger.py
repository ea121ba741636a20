"""The state of a study, read from the run folders: finished and missing results.

Optuna and MLflow are views of these folders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from muvla.checkpoints.build import hash_start
from muvla.data.collect import collect
from muvla.data.mixture import join, open_data
from muvla.data.store import EpisodeStore, get_store_path, is_sealed
from muvla.errors import MuvlaError
from muvla.evaluation.action_chunks import chunk_change
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import Baselines, CellRecords, EpisodeRow, Spread, Summary, summarise
from muvla.probes.base import ScheduledMeasurement
from muvla.runs.baselines import finished_baselines
from muvla.runs.learning_curve import learning_curve
from muvla.runs.probe import frame_file, measurement_meta
from muvla.runs.run import Run
from muvla.utils.files import read_text
from muvla.utils.io import LINES_BYTES
from sweeps.cell_results import CellResults, MeasuredFrame
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
        return self.state_of(self.read())

    def state_of(self, contents: CellContents) -> str:
        """The state of a cell whose files have been read."""
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
        return self.results().records(self.study, self.item)

    def results(self) -> CellResults:
        """Everything that the run folder holds for tables and figures."""
        contents = self.read()
        results, measurements = contents.complete_rows(), _measured_frames(self.run, contents)
        provenance: dict[str, dict[str, Any]] = {}
        seconds = {"training": 0.0, "evaluation": 0.0}
        curve: dict[str, list[float | None]] = {}
        with contents.collecting():
            if results or measurements:
                used = [*chain.from_iterable(results.values()), *measurements.values()]
                provenance = self.run.provenance(used)
            seconds = self.run.seconds()
        if (results or measurements) and not provenance:  # numbers of unknown origin are in no table
            results, measurements = {}, {}
        chunk_changes: dict[Condition, dict[int, Spread]] = {}
        with contents.collecting():
            chunk_changes = self._chunk_changes(results)
        state, data = self.state_of(contents), None
        with contents.collecting():
            data = self.run.meta.sha256 if self.run.is_created else None
            curve = learning_curve(self.run)
        return CellResults(
            self.run.train,
            state,
            results,
            frozenset(contents.unsealed),
            contents.never_fired if results else (),
            measurements,
            provenance,
            seconds,
            chunk_changes,
            tuple(str(error) for error in contents.damage),
            data,
            hash_start(self.item.cell),
            curve,
            self._remarks(provenance),
        )

    def _remarks(self, provenance: dict[str, dict[str, Any]]) -> tuple[str, ...]:
        """A sentence where the demonstrations come from another version of their environment than the episodes."""
        collected: list[dict[str, Any]] = []
        with contextlib.suppress(MuvlaError):  # data that are gone say nothing
            collected = [record for part in self.run.store().parts for record in part.collected]
        sentences = []
        for member, version in dict.fromkeys(pair for each in collected for pair in each["members"].items()):
            used = {record.get("members", {}).get(member, version) for record in provenance.values()}
            if others := sorted(used - {version}):
                sentences.append(
                    f"its demonstrations were collected by version {version} of {member}, and its episodes ran on "
                    f"version {', '.join(others)}"
                )
        return tuple(sentences)

    def _chunk_changes(self, results: dict[Condition, list[EpisodeRow]]) -> dict[Condition, dict[int, Spread]]:
        """How each declared intervention changes the chunks of the plain run, where the chunks of both were kept."""
        changes, folder = {}, self.run.folder / "chunks"
        names = self.study.interventions_of(self.item.cell)
        for protocol, name in ((p.id, name) for p in self.study.protocols for name in names):
            plain, rows = results.get((protocol, "none")), results.get((protocol, name))
            if plain and rows:
                change = chunk_change(folder, plain[0].result, rows[0].result, rows)
                if change:
                    changes[protocol, name] = {since: _spread(values) for since, values in change.items()}
        return changes


def _spread(values: np.ndarray) -> Spread:
    return Spread(len(values), float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def _measured_frames(run: Run, contents: CellContents) -> dict[tuple[str, str], MeasuredFrame]:
    """The finished measurements; none for a cell that is not a measurement."""
    frames = {}
    for scheduled, meta in contents.measurements if contents.counts else ():
        if meta is not None:
            text = read_text(frame_file(run, scheduled), LINES_BYTES)
            frames[scheduled.id, scheduled.protocol.id] = MeasuredFrame(text, meta["provenance"])
    return frames


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
        mixtures = {item.variant: item.cell.data.datasets for item in study.of_one_seed}
        specs = dict.fromkeys(spec for item in study.of_one_seed for spec in item.cell.data.collected)
        stores = {spec: collect(spec, self.data, progress, jobs) for spec in specs}
        presented = {datasets: join([stores[spec] for spec in datasets]) for datasets in mixtures.values()}
        return {variant: presented[datasets] for variant, datasets in mixtures.items()}

    def has_data(self, study: Study) -> bool:
        """True if nothing is left to collect. Raises MuvlaError for an import that does not exist or lacks what the
        labels of a variant need: no collection makes up for that."""
        require_imports(study, self.data)
        specs = {spec for item in study.of_one_seed for spec in item.cell.data.collected}
        return all(is_sealed(get_store_path(self.data, spec)) for spec in specs)

    def opened(self, study: Study) -> dict[str, EpisodeStore]:
        """Variant → its data; raises MuvlaError for data that are not collected."""
        require_imports(study, self.data)
        data = {item.variant: item.cell.data for item in study.of_one_seed}
        stores = {config.datasets: config for config in data.values()}
        opened = {datasets: open_data(self.data, config) for datasets, config in stores.items()}
        return {variant: opened[config.datasets] for variant, config in data.items()}

    def baselines(self, study: Study) -> dict[str, Baselines]:
        """Protocol id → what was measured of its baselines."""
        return {
            protocol.id: finished_baselines(self.root, self.data, protocol) for protocol in study.baseline_protocols
        }

    def entries(self, study: Study, stores: dict[str, EpisodeStore]) -> list[Entry]:
        """Every cell with its run folder. Raises MuvlaError if imported frames differ in size from a protocol's."""
        require_same_frames(study, stores)
        return [
            Entry(study, item, Run(self.root, self.data, train_id(item.cell, stores[item.variant])))
            for item in study.cells()
        ]
