"""The run of a policy that another process serves, and its evaluation.

Its rows lie in `runs/<id>/`, like the rows of a cell. The id is the hash of the server's metadata and configuration.
`server.json` lists them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from muvla.data.normalization import Statistics
from muvla.envs.registry import backends, open_env
from muvla.errors import MuvlaError
from muvla.evaluation.context import EvaluationContext, default_workers
from muvla.evaluation.evaluate import missing_seeds, run_missing
from muvla.evaluation.members import modules_in_use
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import RowFile
from muvla.evaluation.replay import ReplayedEpisode, replay
from muvla.evaluation.rollout import Rollout
from muvla.evaluation.seal import close_seal
from muvla.models.policy import Policy
from muvla.runs.evaluate import Evaluator
from muvla.runs.results import row_file
from muvla.runs.run import Run, TrainedOn
from muvla.serving.remote_actor import RemoteActor
from muvla.serving.remote_server import RemoteServer
from muvla.utils.io import write_json


@dataclass(frozen=True)
class RemoteRun(Run):
    server: RemoteServer

    def load_policy(self, device: str = "cpu") -> Policy:
        raise no_access("its weights")

    def trained_on(self) -> TrainedOn:
        raise no_access("its training data")


def remote_run(root: Path, data: Path, server: RemoteServer) -> RemoteRun:
    """The run of a server; writes its `server.json`.

    Args:
        root: folder of all runs.
        data: folder of all datasets.
        server: the server.
    """
    run = RemoteRun(root, data, server.train, server)
    write_json(run.folder / "server.json", {"train": run.train, "address": server.url} | server.identity)
    return run


def no_access(what: str) -> MuvlaError:
    """The error of a verb that needs more of a policy than its answers."""
    return MuvlaError(
        "RUN",
        got=f"a policy server, which gives no access to {what}",
        expected="a trained cell or a release on this machine",
        remedy="evaluate the server without interventions, or take probes of the task: chunk-length, phase-length",
    )


class RemoteEvaluator(Evaluator):
    """The policy of a server, under any number of protocols. Interventions and measurements are refused."""

    is_local = False

    def __init__(self, run: RemoteRun, should_stop: Callable[[], bool] = lambda: False):
        super().__init__(run, should_stop=should_stop)

    @property
    def policy(self) -> Policy:
        raise no_access("its memory")

    @property
    def trained_on(self) -> TrainedOn:
        raise no_access("its training data")

    def _run_missing(self, protocol: Protocol, intervention: str, retry_errors: bool, workers: int | None) -> None:
        if intervention != "none":
            raise no_access("its memory")
        run = self.run
        file = RowFile(run.rows, row_file(run, protocol, "none").stem)
        missing = missing_seeds(file, protocol, retry_errors)
        if not missing:
            close_seal(file.path)  # an earlier process may have ended before its seal
            return
        simulator, members = backends(protocol.task), modules_in_use(tasks=[protocol.task.name])

        @contextlib.contextmanager
        def record(environment: dict[str, Any]) -> Iterator[str]:
            provenance = run.record_provenance("remote", simulator, environment=environment, members=members)
            with run.timed(f"evaluation {protocol.id}", provenance):
                yield provenance

        environments = min(self._environments(protocol, workers), len(missing))
        rollout = Rollout(
            RemoteActor(run.server, protocol), partial(open_env, protocol.task, protocol.image_size), (), environments
        )
        run_missing(
            rollout, file, missing, EvaluationContext(record, self.check_stop), train=run.train, training_seed=None
        )

    def _environments(self, protocol: Protocol, workers: int | None) -> int:
        """As many episodes side by side as the server plays; a server without a memory for each session plays one."""
        wanted = workers or default_workers(protocol)
        return min(wanted, protocol.slots, self.run.server.sessions or wanted)

    def replay(
        self, protocol: Protocol, intervention: str, seed: int, workers: int | None = None
    ) -> tuple[ReplayedEpisode, Statistics | None]:
        self.check_stop()
        actor = RemoteActor(self.run.server, protocol)
        make_env = partial(open_env, protocol.task, protocol.image_size)
        episodes = replay(actor, make_env, [seed], environments=1, check_stop=self.check_stop)
        return episodes[seed], None
