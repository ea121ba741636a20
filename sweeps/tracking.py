"""MLflow as a view: every cell is a run in a local SQLite store. The view may fail without changing a result."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muvla.config import canonical
from muvla.config.serialization import flatten
from muvla.utils.io import read_lines
from muvla.utils.locks import locked
from sweeps.ledger import Entry

_log = logging.getLogger(__name__)


def readings(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of every number in a line of train.jsonl. Entries of a list or table are named `name/entry`;
    absent entries are left out."""
    for key, value in row.items():
        entries = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else None
        if entries is None and key != "update":
            yield key, float(value)
        for entry, number in entries or ():
            if number is not None:
                yield f"{key}/{entry}", float(number)


def database_address(database: Path) -> str:
    """The address of an SQLite file. A path may hold characters that mean something in an address, such as % and ?."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(database.resolve())).render_as_string()


class Tracker:
    """Logs finished cells. The first failure is reported once and switches the tracker off."""

    def __init__(self, database: Path | None, experiment: str):
        self.client = None
        if database is None:
            return
        try:
            self._open(database, experiment)
        except Exception as error:
            self._give_up(error)

    def _open(self, database: Path, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # Two sweeps that both make the database's tables would leave a broken database.
        with locked(database.with_name("mlflow.lock"), wait=True):
            self.client = MlflowClient(tracking_uri=database_address(database))
            existing = self.client.get_experiment_by_name(experiment)
            artifacts = (database.parent / "mlflow-artifacts").absolute().as_uri()
            self.experiment = (
                existing.experiment_id
                if existing
                else self.client.create_experiment(experiment, artifact_location=artifacts)
            )

    def backfill(self, entries: list[Entry]) -> None:
        """Logs cells that were finished without a tracker, or by `muvla train` and `muvla evaluate`."""
        if self.client is None or not entries:
            return
        try:
            logged = {r.data.tags.get("train") for r in self.client.search_runs([self.experiment], max_results=50_000)}
        except Exception as error:
            self._give_up(error)
            return
        for entry in entries:
            if entry.run.train not in logged:
                self.log(entry)

    def log(self, entry: Entry) -> None:
        """Logs the cell as one MLflow run, which later calls find by its train id."""
        if self.client is None:
            return
        try:
            self._log(entry)
        except Exception as error:
            self._give_up(error)

    def _log(self, entry: Entry) -> None:
        from mlflow.entities import Metric, Param, RunTag

        train, start = entry.run.train, str(entry.run.set_aside)
        same = f"tags.train = '{train}' and tags.start = '{start}'"
        old = self.client.search_runs([self.experiment], same, max_results=1)
        if old:
            run = old[0].info.run_id
        else:
            tags = {"train": train, "start": start, "variant": entry.item.variant, "study": entry.study.name}
            run = self.client.create_run(self.experiment, run_name=entry.item.label, tags=tags).info.run_id
            params = [Param(k, str(v)) for k, v in flatten(canonical(entry.item.cell)).items()]
            self.client.log_batch(run, params=params)
        logged = max((point.step for point in self.client.get_metric_history(run, "loss")), default=-1)
        curve = [
            Metric(name, value, 0, row["update"])
            for row in read_lines(entry.run.folder / "train.jsonl")
            if row["update"] > logged  # a cell that was stopped: the rest follows when it continues
            for name, value in readings(row)
        ]
        for start in range(0, len(curve), 1000):  # MLflow's limit per call
            self.client.log_batch(run, metrics=curve[start : start + 1000])
        rates: list[Any] = []
        for (protocol, intervention), summary in entry.summaries().items():
            label = f"{protocol.split('@')[0]}/{intervention}"
            for metric in ("touch_rate", "choice_accuracy", "success_rate"):
                value = getattr(summary, metric)
                if value is not None:
                    rates.append(Metric(f"{label}/{metric}", value, 0, 0))
        self.client.log_batch(run, metrics=rates, tags=[RunTag("state", entry.state)])
        self.client.set_terminated(run, "FINISHED" if entry.state == "done" else "FAILED")

    def _give_up(self, error: Exception) -> None:
        self.client = None
        warnings.warn(f"MLflow is off for this run ({error}); results are not affected", stacklevel=3)
