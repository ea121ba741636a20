"""Open the run that a verb is asked for: a trained cell, or a released checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muvla.cli.studies import find_study, open_ledger
from muvla.errors import MuvlaError

if TYPE_CHECKING:
    from muvla.runs.evaluate import Evaluator
    from muvla.runs.run import Run

# STUDY/VARIANT/SEED; a name of the Hugging Face hub has exactly one slash.
_CELL = re.compile(r"(?P<study>.+)/(?P<variant>[^/]+)/(?P<seed>\d+)")


def is_cell(name: str) -> bool:
    """True if the name has the form STUDY/VARIANT/SEED."""
    return _CELL.fullmatch(name) is not None


@dataclass(frozen=True)
class ReleaseOptions:
    """Options that only a released checkpoint has."""

    statistics: str | None = None
    size: str | None = None
    precision: str = "float32"
    without_memory: bool = False

    def require_unused(self, name: str) -> None:
        """Raises MuvlaError if an option is given for a trained cell or a policy server."""
        given = {
            "--statistics": self.statistics,
            "--size": self.size,
            "--without-memory": self.without_memory,
            "--precision": self.precision != "float32",
        }
        for option, value in given.items():
            if value:
                raise MuvlaError(
                    option,
                    got=f"with the run {name}",
                    expected="a released checkpoint",
                    remedy=f"leave {option} out: the configuration of a trained cell states it",
                )


@dataclass(frozen=True)
class ServerOptions:
    """Options that only a policy server has."""

    name: str | None = None
    key: str | None = None
    timeout: float = 30.0
    cameras: tuple[str, ...] = ()


def open_run(name: str, runs: Path, data: Path, release: ReleaseOptions, server: ServerOptions | None = None) -> Run:
    """The run of a name, whose numbers count.

    Args:
        name: STUDY/VARIANT/SEED, a train id or its beginning, the folder of a released checkpoint, its name on the
            hub, or the address of a policy server.
        runs: folder of all runs.
        data: folder of all datasets.
        release: options of a released checkpoint.
        server: options of a policy server; None for a verb that needs more than a server's answers.

    Raises:
        MuvlaError: no run has this name, or its numbers do not count.
    """
    if name.startswith(("ws://", "wss://", "http://", "https://")):
        release.require_unused(name)
        return _remote(name, runs, data, server)
    if os.path.exists(name) or ("/" in name and not is_cell(name)):
        run = _released(name, runs, data, release)
        run.require_measurement()
        return run
    release.require_unused(name)
    return find_trained(name, runs, data)


def find_cell(name: str, runs: Path, data: Path) -> Run:
    """The run of STUDY/VARIANT/SEED."""
    from sweeps.loader import load_study

    parts = _CELL.fullmatch(name)
    study = load_study(find_study(parts["study"])).narrowed((int(parts["seed"]),), (parts["variant"],))
    ledger = open_ledger(runs, data)
    (entry,) = ledger.entries(study, ledger.opened(study))
    if not entry.run.is_created:
        raise MuvlaError(
            "RUN",
            got=name,
            expected=f"a cell that is trained under {runs}",
            remedy=f"run `muvla sweep {parts['study']}` first",
        )
    return entry.run


def find_trained(name: str, runs: Path, data: Path) -> Run:
    """The run of a trained cell: STUDY/VARIANT/SEED, or a train id or its beginning."""
    from muvla.runs.find import find_run

    run = find_cell(name, runs, data) if is_cell(name) else find_run(runs, data, name)
    run.require_measurement()
    return run


def _released(name: str, runs: Path, data: Path, release: ReleaseOptions) -> Run:
    from muvla.checkpoints.hub import resolve_checkpoint
    from muvla.checkpoints.opening import open_checkpoint
    from muvla.config.sizes import get_size
    from muvla.runs.released import released_run

    size = get_size(release.size) if release.size else None
    directory = open_checkpoint(resolve_checkpoint(name), size, release.without_memory)
    return released_run(runs, data, name, directory, release.statistics, release.precision)


def _remote(name: str, runs: Path, data: Path, options: ServerOptions | None) -> Run:
    from muvla.serving.remote_run import no_access, remote_run
    from muvla.serving.remote_server import find_server

    if options is None:
        raise no_access("its memory")
    run = remote_run(runs, data, find_server(name, options.key, options.name, options.timeout, options.cameras))
    run.require_measurement()
    return run


def open_evaluator(run: Run, device: str = "cpu", should_stop: Callable[[], bool] = lambda: False) -> Evaluator:
    """The evaluator of a run, or of a policy server.

    Args:
        run: the run.
        device: torch device of a run's policy.
        should_stop: asked between episodes.
    """
    from muvla.runs.evaluate import Evaluator
    from muvla.serving.remote_run import RemoteEvaluator, RemoteRun

    if isinstance(run, RemoteRun):
        return RemoteEvaluator(run, should_stop)
    return Evaluator(run, device, should_stop=should_stop)
