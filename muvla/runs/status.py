"""The state of runs, read from their folders alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvla.checkpoints import native
from muvla.errors import MuvlaError
from muvla.runs.find import train_ids
from muvla.runs.run import Run


@dataclass(frozen=True)
class RunStatus:
    """One run: `state` is trained, stopped, running, failed, "not a measurement" or damaged."""

    train: str
    state: str
    updates: str | None  # done/planned
    results: int  # conditions with rows
    task: str | None
    memory: str | None
    seed: int | None
    error: str | None

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def run_statuses(root: Path) -> Iterator[RunStatus]:
    """All runs under `root`, by train id. A run with a file that cannot be read is `damaged`."""
    for train in train_ids(root):
        run = Run(root, root, train)
        try:
            yield run_status(run)
        except MuvlaError as error:
            results = len(list(run.rows.glob("*.jsonl")))
            yield RunStatus(train, "damaged", None, results, None, None, None, str(error))


def run_status(run: Run) -> RunStatus:
    cell, failure = run.cell, run.failure
    state = "trained" if run.is_trained else "stopped"
    if run.owner:
        state = "running"
    if failure:
        state = failure["kind"]
    memory = f"{cell.memory.kind}, K={cell.truncation}" if cell.recurs else cell.memory.kind
    return RunStatus(
        train=run.train,
        state=state,
        updates=f"{updates_done(run)}/{cell.budget.updates}",
        results=len(list(run.rows.glob("*.jsonl"))),
        task=" + ".join(dataset.task.name for dataset in cell.data.datasets),
        memory=memory,
        seed=cell.seed,
        error=failure["error"] if failure else None,
    )


def updates_done(run: Run) -> int:
    """The update of the newest checkpoint; 0 without a checkpoint."""
    newest = native.latest(run.folder / "checkpoints")
    return 0 if newest is None else int(newest.name.removeprefix("update-"))
