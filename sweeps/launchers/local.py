"""Cells in parallel processes of this machine, one cell per process.

A fork server that has imported the library once starts each process in milliseconds; a cell that crashes, hangs on
memory or is killed costs that cell alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from muvla.config import Cell
from muvla.data.mixture import open_data
from muvla.errors import DiskError, Interrupted
from muvla.evaluation.context import default_workers
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import summarise
from muvla.evaluation.results import NeverFired
from muvla.models.compilation import compile_step
from muvla.probes.base import ScheduledMeasurement
from muvla.runs.evaluate import Evaluator
from muvla.runs.probe import take_measurement
from muvla.runs.run import Run
from muvla.runs.sanity_check import sanity_check
from muvla.runs.train import train_cell
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.run import Progress
from muvla.utils.io import disk_errors, write_json

POLL = 0.2  # seconds
# Exit statuses of a cell's process. None of them is one that Python or a signal gives, so a process that dies by itself
# cannot be taken for one that has marked its cell.
DONE, MARKED, STOPPED, NO_DISK = 10, 11, 12, 13
LOOKS = "looks.json"  # of a run: what was seen, the last time, where nothing succeeded


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to bring one cell to its end; plain and picklable."""

    label: str
    run: Run
    cell: Cell
    missing: tuple[tuple[Protocol, str], ...]  # (protocol, intervention)
    device: str
    threads: int
    retry_errors: bool = False
    options: TrainingOptions = DEFAULT
    workers: int | None = None
    reads: tuple[ScheduledMeasurement, ...] = ()  # readings to take
    at_once: int = 1  # cells side by side, which share the cores where `workers` is None


@dataclass
class Running:
    job: Job
    process: Any
    updates: Connection
    started: float = field(default_factory=time.monotonic)
    message: str = "starting"
    fraction: float = 0.0

    def poll(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self.updates.poll():
                self.message, self.fraction = self.updates.recv()


def run_job(job: Job, updates: Connection) -> None:
    """The body of a cell's process. Its output goes to `log.txt` of the run; it exits with the status of
    `bring_to_end`."""
    import torch

    stop: list[bool] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))

    def report(message: tuple[str, float]) -> None:
        try:
            updates.send(message)
        except OSError:  # the parent is gone: end as if it had asked to
            stop.append(True)

    torch.set_num_threads(job.threads)
    log_file = job.run.folder / "log.txt"
    try:
        with disk_errors(log_file):
            job.run.folder.mkdir(parents=True, exist_ok=True)
            log = log_file.open("a", buffering=1)
    except DiskError as error:
        report((str(error), 1.0))
        sys.exit(NO_DISK)
    with log, redirect_stdout(log), redirect_stderr(log):
        status = bring_to_end(job, report, lambda: bool(stop))
    sys.exit(status)


def bring_to_end(job: Job, report: Callable[[tuple[str, float]], None], should_stop: Callable[[], bool]) -> int:
    """Train, evaluate and probe one cell; returns DONE, MARKED, STOPPED or NO_DISK. Under a protocol where nothing
    succeeds without intervention, the episode that is then looked at is written to `looks.json`."""
    looks: list[tuple[str, list[str]]] = []  # protocol id, lines
    # For the progress bar, evaluating one condition, or a reading, counts as an eighth of training.
    parts = len(job.missing) + len(job.reads) + 8

    def training(p: Progress) -> None:
        done = f"update {p.update}/{p.updates} loss {p.loss:.3f} {p.frames_per_second:.0f} frames/s"
        report((done, 8 * p.update / p.updates / parts))

    try:
        with job.run.working():
            (job.run.folder / LOOKS).unlink(missing_ok=True)
            store = open_data(job.run.data, job.cell.data)
            train_cell(
                job.run,
                job.cell,
                store,
                job.device,
                training,
                should_stop,
                job.options,
            )
            evaluator = Evaluator(job.run, job.device, should_stop=should_stop)
            if job.options.compiled:
                compile_step(evaluator.policy)
            for i, (protocol, intervention) in enumerate(job.missing):
                report((f"{protocol.id} {intervention}", (8 + i) / parts))
                workers = job.workers or default_workers(protocol, job.at_once)
                try:
                    rows = evaluator.evaluate(protocol, intervention, job.retry_errors, workers)
                except NeverFired as error:  # says nothing against the cell, nor its other conditions; it is kept
                    print(f"{protocol.id} {intervention}: never fired: {error}")
                    continue
                if intervention == "none" and summarise(rows).success_rate == 0:
                    report((f"{protocol.id} sanity check", (9 + i) / parts))
                    looks.append((protocol.id, sanity_check(evaluator, protocol, intervention, workers)))
                    write_json(job.run.folder / LOOKS, looks)
            for i, scheduled in enumerate(job.reads, start=len(job.missing)):
                report((f"{scheduled.protocol.id} {scheduled.id}", (8 + i) / parts))
                take_measurement(evaluator, scheduled)
    except Interrupted:
        return STOPPED
    except DiskError as error:
        report((str(error), 1.0))  # through the pipe: the log is on the same disk
        return NO_DISK
    except Exception as error:
        with contextlib.suppress(OSError):
            print(f"{type(error).__name__}: {error}")
        return MARKED
    return DONE


class Pool:
    """At most `processes` cells at once. `on_tick` sees what runs, `on_end` each finished one with its exit status."""

    def __init__(self, processes: int):
        self.processes = processes
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["sweeps.launchers.local"])

    def run(
        self,
        jobs: list[Job],
        on_tick: Callable[[list[Running]], None],
        on_end: Callable[[Running, int], None],
        deadline: float | None = None,
    ) -> None:
        """Until all have ended, or `deadline` (monotonic seconds): what runs then is stopped cleanly."""
        waiting, running = list(jobs), []
        try:
            while waiting or running:
                late = deadline is not None and time.monotonic() > deadline
                while waiting and len(running) < self.processes and not late:
                    running.append(self._start(waiting.pop(0)))
                if late:
                    break
                time.sleep(POLL)
                for one in list(running):
                    alive = one.process.is_alive()
                    one.poll()  # after the look at the process: its last message is then in the pipe
                    if not alive:
                        running.remove(one)
                        on_end(one, one.process.exitcode)
                on_tick(running)
        finally:
            _stop(running)

    def _start(self, job: Job) -> Running:
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=run_job, args=(job, sender), name=job.label)
        process.start()
        sender.close()
        return Running(job, process, receiver)


def _stop(running: list[Running], patience: float = 20.0) -> None:
    """Ask politely (a cell then checkpoints at once), then insist."""
    for one in running:
        one.process.terminate()
    end = time.monotonic() + patience
    for one in running:
        one.process.join(max(0.1, end - time.monotonic()))
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
