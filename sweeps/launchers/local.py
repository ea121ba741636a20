"""Cells in parallel processes of this machine, one cell per process, spread over the GPUs.

A fork server that has imported the library once starts each process in milliseconds. A cell that crashes, runs out of
memory or is killed costs that cell alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from muvla.utils.devices import usable_cores
from sweeps.launchers.base import End, Job, Launcher, Progress, Status
from sweeps.launchers.devices import Places, require_gpus
from sweeps.work import run_job

POLL = 0.2  # seconds
PATIENCE = 20.0  # seconds that a process has to write a checkpoint when it is asked to stop
SERVER_KILLED = 255  # multiprocessing's status of a process whose fork server is gone


@dataclass
class Running:
    """A job with its process."""

    progress: Progress
    process: BaseProcess
    updates: Connection
    place: tuple[int, ...]
    started: float = field(default_factory=time.monotonic)

    def poll(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self.updates.poll():
                self.progress.message, self.progress.fraction = self.updates.recv()

    def end(self) -> End:
        """How the process ended."""
        code = self.process.exitcode
        if code in list(Status):
            return End(self.progress.job, Status(code), self.progress.message)
        what = f"its process ended with status {code} (killed, or out of memory)"
        return End(self.progress.job, Status.LOST, what, by_signal=code < 0 or code == SERVER_KILLED)


def run_in_process(job: Job, updates: Connection, visible: str | None = None) -> None:
    """The body of a job's process, which exits with the job's status.

    Args:
        job: the job.
        updates: takes the job's messages.
        visible: CUDA_VISIBLE_DEVICES of the job; None leaves the variable as it is.
    """
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    stop: list[bool] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))

    def report(message: str, fraction: float) -> None:
        try:
            updates.send((message, fraction))
        except OSError:  # the parent is gone: end as if it had asked to stop
            stop.append(True)

    sys.exit(run_job(job, report, lambda: bool(stop)))


@dataclass(frozen=True)
class LocalOptions:
    """Options of the launcher `local`.

    Attributes:
        gpus_per_cell: GPUs, and training processes, of every cell. On `--device cpu` the processes share the CPU.
    """

    gpus_per_cell: int = 1


class LocalLauncher(Launcher):
    """One process of this machine per job. On `cuda`, jobs go round robin over all GPUs."""

    Options = LocalOptions

    def __init__(self, processes: int, options: LocalOptions | None = None):
        super().__init__(processes, options)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["sweeps.launchers.local"])

    @classmethod
    def default_processes(cls, device: str, options: LocalOptions) -> int:
        """One process per core of the CPU, or one per place on the GPUs."""
        if device == "cpu":
            return max(1, usable_cores() // options.gpus_per_cell)
        return Places(device, options.gpus_per_cell).count

    def check(self, device: str) -> None:
        require_gpus(device, self.options.gpus_per_cell)

    def run(
        self,
        jobs: Sequence[Job],
        on_tick: Callable[[list[Progress]], None],
        on_end: Callable[[End], None],
        deadline: float | None = None,
    ) -> None:
        waiting: list[Job] = list(jobs)
        running: list[Running] = []
        places = Places(jobs[0].device, self.options.gpus_per_cell)
        try:
            while waiting or running:
                if deadline is not None and time.monotonic() > deadline:
                    break
                while waiting and len(running) < self.processes:
                    running.append(self._start(waiting.pop(0), places))
                time.sleep(POLL)
                for item in list(running):
                    alive = item.process.is_alive()
                    item.poll()  # after `is_alive`: the last message of a process that has ended is then in the pipe
                    if not alive:
                        running.remove(item)
                        places.give_back(item.place)
                        on_end(item.end())
                on_tick([item.progress for item in running])
        finally:
            _stop(running)

    def _start(self, job: Job, places: Places) -> Running:
        place = places.take()
        job = replace(job, device=places.device_at(place), ranks=self.options.gpus_per_cell)
        receiver, sender = self._context.Pipe(duplex=False)
        arguments = (job, sender, places.visible_at(place))
        process = self._context.Process(target=run_in_process, args=arguments, name=job.label)
        process.start()
        sender.close()
        return Running(Progress(job), process, receiver, place)


def _stop(running: list[Running]) -> None:
    """Asks every process to stop, which makes a cell write a checkpoint at once; kills what does not end in time."""
    for item in running:
        item.process.terminate()
    end = time.monotonic() + PATIENCE
    for item in running:
        item.process.join(max(0.1, end - time.monotonic()))
        if item.process.is_alive():
            item.process.kill()
            item.process.join()
