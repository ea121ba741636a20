"""MLflow as a tracker: a run per cell below a run per study.

The store is `MLFLOW_TRACKING_URI`, or the SQLite file `mlflow.db` beside the run folders.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muvla.errors import MuvlaError
from muvla.utils.filesystem import file_system, is_local
from muvla.utils.locks import locked
from sweeps.tracking.base import CellFacts, StudyFacts, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DATABASE = "mlflow.db"
PER_CALL = 1000  # metrics of one call, MLflow's limit
LONGEST = 500  # characters of a parameter's value


def database_address(database: Path) -> str:
    """The address of an SQLite file. A path may hold characters that mean something in an address, such as % and ?."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(database.resolve())).render_as_string()


def tracking_address(root: Path) -> str:
    """The address of the store: `MLFLOW_TRACKING_URI`, or the SQLite file in the folder of all runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or database_address(root / DATABASE)


def _require_safe_store(root: Path) -> None:
    """Raises MuvlaError for an SQLite file on a shared file system, where two writers would break the file."""
    root.mkdir(parents=True, exist_ok=True)
    if "MLFLOW_TRACKING_URI" in os.environ or is_local(root):
        return
    raise MuvlaError(
        "MLFLOW_TRACKING_URI",
        got=f"no server, and an SQLite file on {file_system(root) or 'an unknown file system'}",
        expected="a server, because the locks of SQLite may end at a machine there",
        remedy="set MLFLOW_TRACKING_URI to the address that `mlflow server` prints, or use --no-tracking",
    )


class MlflowTracker(Tracker):
    """A run per cell, which the train id and the number of its starts name."""

    client: MlflowClient
    experiment: str
    parent: str  # run of the study

    def open_study(self, study: StudyFacts) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.study = study
        _require_safe_store(self.root)
        # Two sweeps that both make the database's tables would leave a broken database.
        with locked(self.root / "mlflow.lock", wait=True):
            self.client = MlflowClient(tracking_uri=tracking_address(self.root))
            self.experiment = self._experiment(study)
            self.parent = self._parent(study)

    def _experiment(self, study: StudyFacts) -> str:
        existing = self.client.get_experiment_by_name(study.name)
        if existing:
            return existing.experiment_id
        local = "MLFLOW_TRACKING_URI" not in os.environ  # a server has a place of its own for artifacts
        place = (self.root / "mlflow-artifacts").absolute().as_uri() if local else None
        tags = {
            "mlflow.note.content": f"{study.title}\n\n{study.notes}".strip(),
            "mlflow.experimentKind": "custom_model_development",
        }
        return self.client.create_experiment(study.name, artifact_location=place, tags=tags)

    def _parent(self, study: StudyFacts) -> str:
        runs = self.client.search_runs([self.experiment], "tags.level = 'study'", max_results=1)
        tags = {"level": "study", "code": study.code, "mlflow.note.content": f"{study.title}\n\n{study.notes}".strip()}
        if study.commit:
            tags["mlflow.source.git.commit"] = study.commit
        run = (
            runs[0].info.run_id
            if runs
            else self.client.create_run(self.experiment, run_name=f"study {study.name}", tags=tags).info.run_id
        )
        for key, value in tags.items():
            self.client.set_tag(run, key, value)
        if study.page is not None:
            self.client.log_artifacts(run, str(study.page), "report")
        self.client.set_terminated(run, "FINISHED")  # a killed sweep leaves no run that seems to go on
        return run

    def outdated(self, cells: Mapping[str, int]) -> set[str]:
        runs = self.client.search_runs([self.experiment], "tags.level = 'cell'", max_results=50_000)
        whole = {r.data.tags["train"]: int(r.data.tags.get("results", -1)) for r in runs if r.info.status == "FINISHED"}
        return {train for train, results in cells.items() if whole.get(train) != results}

    def log_cell(self, cell: CellFacts) -> None:
        run = self._find(cell) or self._create(cell)
        identity = run.info.run_id
        self._log_curve(identity, cell)
        self._log_results(identity, cell)
        if not cell.is_over:
            return
        self._log_files(identity, cell)
        status = {"done": "FINISHED", "partial": "KILLED"}.get(cell.state, "FAILED")
        self.client.set_terminated(identity, status, end_time=_milliseconds(cell.ended))
        self.client.set_terminated(self.parent, "FINISHED")

    def _find(self, cell: CellFacts) -> Run | None:
        same = f"tags.train = '{cell.train}' and tags.start = '{cell.start}'"
        runs = self.client.search_runs([self.experiment], same, max_results=1)
        if runs and runs[0].info.status != "RUNNING" and not cell.is_over:
            self.client.update_run(runs[0].info.run_id, status="RUNNING")  # a cell that continues
        return runs[0] if runs else None

    def _create(self, cell: CellFacts) -> Run:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        tags = {
            "level": "cell",
            "train": cell.train,
            "start": str(cell.start),
            "variant": cell.factors["variant"],
            "study": self.study.name,
            "code": self.study.code,
            "mlflow.parentRunId": self.parent,
        }
        if self.study.commit:
            tags["mlflow.source.git.commit"] = self.study.commit
        run = self.client.create_run(
            self.experiment, start_time=_milliseconds(cell.began), run_name=cell.label, tags=tags
        )
        params = [Param(name, value) for name, value in cell.factors.items()]
        params += [Param(f"cell/{name}", str(value)[:LONGEST]) for name, value in cell.fields.items()]
        self.client.log_batch(run.info.run_id, params=params)
        name, digest = cell.data
        if name:
            dataset = Dataset(name, digest[:36], "local", f"{name}")
            inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
            self.client.log_inputs(run.info.run_id, inputs)
        return run

    def _log_curve(self, run: str, cell: CellFacts) -> None:
        """Logs the lines of the training log that the run lacks."""
        from mlflow.entities import Metric

        logged = max((point.step for point in self.client.get_metric_history(run, "loss")), default=-1)
        metrics = [
            Metric(name, value, _milliseconds(point.time), point.update)
            for point in cell.curve
            if point.update > logged
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), PER_CALL):
            self.client.log_batch(run, metrics=metrics[start : start + PER_CALL])

    def _log_results(self, run: str, cell: CellFacts) -> None:
        """Logs the results that the run lacks or has otherwise."""
        from mlflow.entities import Metric, RunTag

        there: dict[str, Any] = self.client.get_run(run).data.metrics
        step = max((point.update for point in cell.curve), default=0)
        metrics = [
            Metric(name, value, _milliseconds(cell.ended), step)
            for name, value in cell.results.items()
            if there.get(name) != value
        ]
        tags = [RunTag("level", "cell"), RunTag("state", cell.state), RunTag("results", str(len(cell.results)))]
        if cell.error:
            tags.append(RunTag("error", cell.error[:LONGEST]))
        self.client.log_batch(run, metrics=metrics, tags=tags)

    def _log_files(self, run: str, cell: CellFacts) -> None:
        for file in cell.files:
            folder = None if file.parent.name == cell.train else file.parent.name
            self.client.log_artifact(run, str(file), folder)


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
