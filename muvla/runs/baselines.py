"""The folders `runs/random` and `runs/expert`: rows and provenance of policies that were never trained.

Train ids are hexadecimal, so neither name can be a train id. The folders hold no configuration and no checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from muvla.envs.registry import backends, open_blind_env
from muvla.errors import Interrupted, MuvlaError
from muvla.evaluation.baselines import ACTIONS, BaselineActor, baseline_names, memoryless_ideal
from muvla.evaluation.context import EvaluationContext, default_workers
from muvla.evaluation.evaluate import missing_seeds, run_missing
from muvla.evaluation.members import modules_in_use
from muvla.evaluation.protocol import Protocol, unbounded
from muvla.evaluation.records import Baselines, EpisodeRow, RowFile, result_id
from muvla.evaluation.rollout import Rollout
from muvla.evaluation.seal import close_seal
from muvla.runs.evaluate import require_same_simulator
from muvla.runs.results import has_result, read_result, result_rows, row_file
from muvla.runs.run import Run
from muvla.utils.locks import holder, locked


def measure_baseline(
    run: Run,
    protocol: Protocol,
    should_stop: Callable[[], bool] = lambda: False,
    retry_errors: bool = False,
    workers: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[EpisodeRow]:
    """The rows of a baseline's episodes; episodes without a row are run first.

    Waits while another process runs them.

    Args:
        run: a run whose train id is the name of a baseline (`muvla.evaluation.baselines.ACTIONS`).
        protocol: the protocol.
        should_stop: asked after every episode.
        retry_errors: also run episodes again whose last attempt ended in an error.
        workers: environments side by side; by default as many as fit.
        say: called once with a line that names the process waited for.

    Raises:
        Interrupted: `should_stop` returned True.
        MuvlaError: the simulator cannot run here.
    """

    def check_stop() -> None:
        if should_stop():
            raise Interrupted

    lock, named = run.folder / "locks" / result_id(run.train, protocol, "none"), []

    def waiting() -> None:
        check_stop()
        if not named and (owner := holder(lock)):
            named.append(owner)
            say(f"{protocol.id} {run.train}: {owner} works on it, waiting")

    if not has_result(run, protocol, "none", without_errors=retry_errors):
        with locked(lock, wait=True, waiting=waiting):
            if missing := _missing(run, protocol, retry_errors):
                _run_missing(run, protocol, missing, workers, check_stop)
            close_seal(row_file(run, protocol, "none"))  # an earlier process may have ended before its seal
    return result_rows(run, protocol, "none")


def _missing(run: Run, protocol: Protocol, retry_errors: bool) -> list[int]:
    return missing_seeds(_row_file(run, protocol), protocol, retry_errors)


def _row_file(run: Run, protocol: Protocol) -> RowFile:
    return RowFile(run.rows, row_file(run, protocol, "none").stem)


def _run_missing(
    run: Run, protocol: Protocol, missing: list[int], workers: int | None, check_stop: Callable[[], None]
) -> None:
    simulator = backends(protocol.task)  # raises before any environment is opened
    members = modules_in_use(tasks=[protocol.task.name])
    require_same_simulator(run, protocol, "none")
    check_stop()

    @contextlib.contextmanager
    def record(environment: dict[str, Any]) -> Iterator[str]:
        identity = run.record_provenance("cpu", simulator, environment=environment, members=members)
        with run.timed(f"evaluation {protocol.id}", identity):
            yield identity

    environments = min(workers or default_workers(protocol), len(missing))
    rollout = Rollout(BaselineActor(run.train, protocol, environments), lambda: open_blind_env(protocol.task))
    context = EvaluationContext(record, check_stop)
    run_missing(rollout, _row_file(run, protocol), missing, context, train=run.train, training_seed=None)


def finished_baselines(root: Path, data: Path, protocol: Protocol) -> Baselines:
    """The complete baseline results of a protocol, and why the others are absent."""
    rows, records, available = {}, {}, baseline_names(protocol)
    damage: dict[str, str] = {}
    unsealed: set[str] = set()
    for name in available:
        run = Run(root, data, name)
        try:
            result = read_result(run, protocol, "none")
            if result.is_complete:
                records |= run.provenance(result.rows)
                rows[name] = result.rows
                unsealed |= set() if result.is_sealed else {name}
        except MuvlaError as error:
            damage[name] = str(error)
    reasons = (
        {"random": "–", "expert": "no expert"} | dict.fromkeys(available, "not run") | dict.fromkeys(damage, "damaged")
    )
    absent = {name: reasons[name] for name in ACTIONS if name not in rows}
    return Baselines(
        rows,
        absent,
        memoryless_ideal(protocol),
        records,
        unbounded(protocol),
        damage=tuple(damage.values()),
        unsealed=frozenset(unsealed),
    )
