"""Cells as tasks of a Ray cluster: a local one by default, or an existing one by its address.

A worker process of Ray runs one cell after the other, so that only its first cell pays for imports. A cell whose worker
or node is gone starts again elsewhere and continues from its checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muvla.errors import MuvlaError
from muvla.utils.devices import usable_cores
from muvla.utils.packages import import_extra
from sweeps.launchers.base import End, Job, Launcher, Progress, Status
from sweeps.launchers.devices import require_gpus
from sweeps.launchers.parcel import Parcel, pack, unpack
from sweeps.work import run_job

POLL = 0.2  # seconds
ASK = 1.0  # seconds between two messages of a job to the sweep
PATIENCE = 30.0  # seconds that a task has to write a checkpoint when it is asked to stop
LOSSES = 3  # of one cell, with its worker or node; the cell is then marked as failed
REACH = 5.0  # seconds in which an address must answer
ALL = 1000  # cells at once on a cluster, unless the user says a number: the resources decide


@dataclass(frozen=True)
class RayOptions:
    """Options of the launcher `ray`.

    Attributes:
        address: `host:port` of a cluster, or `auto` for the cluster of this machine; empty for a new local cluster.
        cpus: cores per cell; 0 for `--threads`.
        gpus_per_cell: GPUs per cell; from 2 on, torchrun trains the cell. None for one on `cuda`.
        memory: GB per cell that Ray sets aside; 0 for none.
        resources: resources that a node must have, such as `a100=1`.
    """

    address: str = ""
    cpus: int = 0
    gpus_per_cell: int | None = None
    memory: float = 0.0
    resources: tuple[str, ...] = ()

    def gpus(self, device: str) -> int:
        return (1 if device != "cpu" else 0) if self.gpus_per_cell is None else self.gpus_per_cell


@dataclass
class Running:
    """A job with its task."""

    progress: Progress
    task: Any
    losses: list[str] = field(default_factory=list)


class Board:
    """The actor that tasks report to, and that tells them to stop."""

    def __init__(self):
        self._messages: dict[str, tuple[str, float, str]] = {}
        self._stopping = False

    def report(self, train: str, message: str, fraction: float, node: str) -> bool:
        """Keeps the last message of a cell.

        Args:
            train: train id of the cell.
            message: what the task does.
            fraction: share of the work that is done.
            node: host name of the task.

        Returns:
            True if the task must stop.
        """
        self._messages[train] = (message, fraction, node)
        return self._stopping

    def messages(self) -> dict[str, tuple[str, float, str]]:
        return self._messages

    def stop(self) -> None:
        self._stopping = True


def run_parcel(parcel: Parcel, board: Any) -> tuple[int, str]:
    """The body of a task: brings the cell to its end. Returns the job's status and last message."""
    job, last, stop, ended = unpack(parcel), ["starting", 0.0], threading.Event(), threading.Event()

    def report(message: str, fraction: float) -> None:
        last[:] = message, fraction

    def exchange() -> None:
        import ray

        node = socket.gethostname()
        while not ended.wait(ASK):
            try:
                if ray.get(board.report.remote(job.run.train, *last, node), timeout=60):
                    stop.set()
            except ray.exceptions.RayError:  # the sweep is gone: end as if it had asked to stop
                stop.set()

    thread = threading.Thread(target=exchange, daemon=True)
    thread.start()
    try:
        return int(run_job(job, report, stop.is_set)), str(last[0])
    finally:
        ended.set()
        thread.join()


class RayLauncher(Launcher):
    """One task of a Ray cluster per job."""

    Options = RayOptions
    runs_elsewhere = True

    def __init__(self, processes: int, options: RayOptions | None = None):
        super().__init__(processes, options)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU see none
        os.environ.setdefault("RAY_worker_niceness", "0")  # as the processes of `local`; Ray's default is 15
        self._ray = import_extra("ray", "ray")

    @classmethod
    def default_processes(cls, device: str, options: RayOptions) -> int:
        if options.address:
            return ALL
        return usable_cores() // (options.cpus or 1) if device == "cpu" else ALL

    def check(self, device: str) -> None:
        if not self.options.address and (gpus := self.options.gpus(device)):
            require_gpus("cuda", gpus)
        _require_answer(self.options.address)

    def run(
        self,
        jobs: Sequence[Job],
        on_tick: Callable[[list[Progress]], None],
        on_end: Callable[[End], None],
        deadline: float | None = None,
    ) -> None:
        if deadline is not None and time.monotonic() > deadline:
            return
        with self._joined(jobs[0]):
            board = self._ray.remote(num_cpus=0)(Board).remote()
            waiting, running = list(jobs), []
            try:
                while (waiting or running) and (deadline is None or time.monotonic() < deadline):
                    while waiting and len(running) < self.processes:
                        running.append(self._start(waiting.pop(0), board))
                    self._turn(running, board, on_end)
                    on_tick([item.progress for item in running])
            finally:
                self._stop(running, board)

    @contextlib.contextmanager
    def _joined(self, job: Job):
        """A connection to the cluster. A cluster that this process has started ends with the block."""
        options, ray = self.options, self._ray
        paths = os.pathsep.join(os.path.abspath(place) for place in sys.path)
        common = {"log_to_driver": False, "logging_level": "error", "namespace": "muvla"}
        environment = {"env_vars": {"PYTHONPATH": paths}}
        try:
            if options.address:
                ray.init(address=options.address, runtime_env=environment, **common)
            else:
                with _environment(PYTHONPATH=paths):  # the workers' import path; a runtime environment costs seconds
                    cpus = self.processes * (options.cpus or job.threads)
                    ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise _unreachable(options.address or "a local cluster", error) from error
        try:
            self._require_resources(job)
            yield
        finally:
            ray.shutdown()

    def _require_resources(self, job: Job) -> None:
        """Raises MuvlaError if no node of the cluster can ever hold a cell."""
        wanted = self._resources(job)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
            return
        field = "--gpus-per-cell" if wanted.get("GPU") else "--option"
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
        raise MuvlaError(
            field,
            got=f"{_listed(wanted)} per cell",
            expected=f"at most what a node of the cluster has: {_listed(most)}",
            remedy="ask for less, or join a cluster with such a node by --address",
        )

    def _resources(self, job: Job) -> dict[str, float]:
        """Resource name of Ray → count, for a cell."""
        options = self.options
        wanted: dict[str, float] = {"CPU": options.cpus or job.threads}
        if gpus := options.gpus(job.device):
            wanted["GPU"] = gpus
        if options.memory:
            wanted["memory"] = options.memory * 2**30
        for text in options.resources:
            name, _, count = text.partition("=")
            try:
                wanted[name] = float(count)
            except ValueError:
                raise MuvlaError(
                    "--option resources", got=text, expected="name=count", remedy="for example resources=a100=1"
                ) from None
        return wanted

    def _start(self, job: Job, board: Any) -> Running:
        wanted = self._resources(job)
        limits = {"num_cpus": wanted.pop("CPU"), "num_gpus": wanted.pop("GPU", 0), "max_retries": 0}
        memory = wanted.pop("memory", 0)
        task = self._ray.remote(**limits, memory=memory or None, resources=wanted)(run_parcel)
        here = replace(
            job, ranks=max(1, self.options.gpus(job.device)), at_once=max(1, min(job.at_once, self.processes))
        )
        return Running(Progress(job, "waits for a worker"), task.remote(pack(here), board))

    def _turn(self, running: list[Running], board: Any, on_end: Callable[[End], None]) -> None:
        """Takes up messages and ends; starts lost jobs again."""
        ray = self._ray
        done, _ = ray.wait([item.task for item in running], num_returns=len(running), timeout=POLL)
        with contextlib.suppress(ray.exceptions.RayError):
            messages = ray.get(board.messages.remote(), timeout=10)
            for item in running:
                if report := messages.get(item.progress.job.run.train):
                    item.progress.message, item.progress.fraction = report[:2]
        for item in [item for item in running if item.task in done]:
            end = self._end(item)
            if end is None:  # lost with its worker or node
                again = self._start(item.progress.job, board)
                item.task, item.progress.message = again.task, f"starts again: {item.losses[-1]}"
                continue
            running.remove(item)
            on_end(end)

    def _end(self, item: Running) -> End | None:
        """How the task ended; None if it must start again."""
        job, ray = item.progress.job, self._ray
        try:
            status, message = ray.get(item.task)
            return End(job, Status(status), message)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as error:
            item.losses.append(_first_line(error))
        except ray.exceptions.RayTaskError as error:  # the task raised before it could mark its cell
            return End(job, Status.LOST, _first_line(error.cause))
        except ray.exceptions.RayError as error:
            item.losses.append(_first_line(error))
        if len(item.losses) < LOSSES:
            return None
        return End(job, Status.LOST, f"its worker or node was lost {LOSSES} times: {'; '.join(item.losses)}")

    def _stop(self, running: list[Running], board: Any) -> None:
        """Asks every task to stop, which makes a cell write a checkpoint; kills what does not end in time.

        A task that has ended is never cancelled: Ray may abort this process when a cancellation meets a task's end
        (https://github.com/ray-project/ray/pull/54798).
        """
        if not running:
            return
        ray, tasks = self._ray, [item.task for item in running]
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(board.stop.remote(), timeout=PATIENCE)
        started = set(_messages(ray, board))
        _, left = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        for item in running:
            if item.task in left and item.progress.job.run.train not in started:
                ray.cancel(item.task)  # waits for a worker
        _, left = ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE)
        for task in left:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(task, force=True)


def _messages(ray: Any, board: Any) -> dict[str, Any]:
    with contextlib.suppress(ray.exceptions.RayError):
        return ray.get(board.messages.remote(), timeout=PATIENCE)
    return {}


def _require_answer(address: str) -> None:
    """Raises MuvlaError if nothing listens at `host:port`. Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), REACH).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> MuvlaError:
    return MuvlaError(
        "--address",
        got=f"{address}, which does not answer ({_first_line(error)})",
        expected="the address of a running Ray cluster",
        remedy="start one by `ray start --head`, which prints its address; or omit --address for a local cluster",
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]


def _listed(resources: dict[str, float]) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in resources.items())


@contextlib.contextmanager
def _environment(**variables: str):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
