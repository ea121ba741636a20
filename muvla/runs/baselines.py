"""The folders `runs/random` and `runs/expert`: rows and provenance of what was never trained, as of any run.

Train ids are hexadecimal, so neither name can be one; there is no configuration and no checkpoint in them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from muvla.envs.registry import backends, open_blind
from muvla.errors import Interrupted
from muvla.evaluation.baselines import ACTIONS, UnlearnedRollout, memoryless_ideal, unlearned
from muvla.evaluation.evaluate import default_workers, missing_seeds, run_missing
from muvla.evaluation.protocol import Protocol, unbounded
from muvla.evaluation.records import Baselines, EpisodeRow, RowFile, result_id
from muvla.runs.run import Run, never
from muvla.utils import provenance as origin
from muvla.utils.io import holder, locked


class UnlearnedRun(Run):
    """One of `muvla.evaluation.baselines.ACTIONS`; its train id is its name."""

    def measure(
        self,
        protocol: Protocol,
        should_stop: Callable[[], bool] = never,
        retry_errors: bool = False,
        workers: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> list[EpisodeRow]:
        """The rows of the protocol's episodes, running those that are missing, and those with an error if told. Waits
        for another process that does so, and says which. Raises MuvlaError for a simulator that cannot run here."""

        def check_stop() -> None:
            if should_stop():
                raise Interrupted

        result, told = result_id(self.train, protocol, "none"), []
        lock = self.folder / "locks" / result

        def waiting() -> None:
            check_stop()
            if not told and (owner := holder(lock)):
                told.append(owner)
                say(f"{protocol.id} {self.train}: process {owner} works on it, waiting")

        def missing_now() -> tuple[RowFile, list[int]]:
            return (file := RowFile(self.rows, result)), missing_seeds(file, protocol, retry_errors)

        if not missing_now()[1]:
            return self.result_rows(protocol, "none")
        with locked(lock, wait=True, waiting=waiting):
            file, missing = missing_now()
            if missing:
                backends(protocol.task)  # raises before any environment is opened
                self._require_same_simulator(protocol, "none")
                check_stop()
                rollout = UnlearnedRollout(
                    self.train,
                    protocol,
                    lambda: open_blind(protocol.task),
                    min(workers or default_workers(protocol), len(missing)),
                )
                whose = {"train": self.train, "training_seed": None, "intervention": "none"}
                run_missing(file, missing, rollout, lambda told: self._recorded(protocol, told), check_stop, **whose)
        return self.result_rows(protocol, "none")

    @contextlib.contextmanager
    def _recorded(self, protocol: Protocol, environment: dict[str, Any]) -> Iterator[str]:
        record = origin.provenance("cpu", backends(protocol.task), environment=environment)
        identity = origin.keep(record, self.folder / "provenance")
        with self._timed(f"evaluation {protocol.id}", identity):
            yield identity


def measured(root: Path, data: Path, protocol: Protocol) -> Baselines:
    """What is known of the protocol beside trained policies, from complete results alone."""
    rows, records, known = {}, {}, unlearned(protocol)
    for name in known:
        run = UnlearnedRun(root, data, name)
        if run.has_result(protocol, "none"):
            rows[name] = run.result_rows(protocol, "none")
            records |= run.provenance(rows[name])
    never_run = {"random": "–", "expert": "no expert"}
    absent = {name: "not run" if name in known else never_run[name] for name in ACTIONS if name not in rows}
    return Baselines(rows, absent, memoryless_ideal(protocol), records, unbounded(protocol))
