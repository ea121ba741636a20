"""The contract of a launcher: it runs the work of a study's cells somewhere, and says how each job ended.

A launcher decides where and when a job runs. `sweeps.work.run_job` is the work itself, the same under every launcher.
The run folders are the truth: a launcher that crashes, or that is replaced by another one, loses no result.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from muvla.config import Cell
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import ScheduledMeasurement
from muvla.runs.run import Run
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.utils.devices import usable_cores
from sweeps.launchers.options import NoOptions


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to bring one cell to its end. A job is plain data and can be pickled.

    A process that unpickles a job must have the `sys.path` of the process that made it: the study's project may define
    classes that the job holds. Python's multiprocessing sees to that; other transports must do it themselves.

    Attributes:
        label: variant and seed, for people.
        run: the run folder.
        cell: the training configuration.
        missing: (protocol, intervention) of the evaluations that are left.
        measurements: probe measurements that are left.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads of the process.
        retry_errors: whether episodes that ended in an error run again.
        options: how to train; no option is part of a cell's identity.
        workers: environments side by side; None takes a default that shares the cores among `at_once` cells.
        at_once: cells that run side by side on one machine.
        ranks: processes that train the cell together, each on a GPU of its own; 1 for the job's process alone.
    """

    label: str
    run: Run
    cell: Cell
    missing: tuple[tuple[Protocol, str], ...]
    device: str
    threads: int
    retry_errors: bool = False
    options: TrainingOptions = DEFAULT
    workers: int | None = None
    measurements: tuple[ScheduledMeasurement, ...] = ()
    at_once: int = 1
    ranks: int = 1


class Status(enum.IntEnum):
    """How a job ended. The values are exit statuses that neither Python nor a signal gives, so that a process that dies
    by itself is not taken for a process that has marked its cell."""

    DONE = 10  # every result of the job is on disk
    MARKED = 11  # the cell is marked in its failure.json, by this job or by another one before
    STOPPED = 12  # asked to stop; everything so far is on disk, and the same job continues
    NO_DISK = 13  # the disk is full, or a rank or a lock is lost; nothing is marked, and the same job continues
    LOST = 14  # the job ended without saying how: killed, out of memory, or its machine is gone
    BUSY = 15  # another process works on the cell; nothing was touched


@dataclass
class Progress:
    """A job that runs now.

    Attributes:
        job: the job.
        message: what it does, for people.
        fraction: share of the work that is done, 0 to 1.
    """

    job: Job
    message: str = "starting"
    fraction: float = 0.0


@dataclass(frozen=True)
class End:
    """A job that has ended.

    Attributes:
        job: the job.
        status: how it ended.
        message: the last message of the job; for LOST, what is known of the end, for example "status -9".
        by_signal: the job is LOST because a signal ended its process: a kill, a stop of the machine, too little memory.
    """

    job: Job
    status: Status
    message: str = ""
    by_signal: bool = False


class Launcher(ABC):
    """Runs jobs, at most `processes` of them at once.

    A launcher is made anew for every sweep. It is listed in `sweeps.launchers.registry`, or in the entry-point group
    `muvla.launchers` of another package. docs/extending/launcher.md has a worked example, and
    tests/test_launcher_contract.py checks every registered launcher.

    Attributes:
        Options: frozen dataclass of the launcher's options, each with a default.
        runs_elsewhere: whether jobs may run on machines with other devices than this one.
    """

    Options: ClassVar[type] = NoOptions
    runs_elsewhere: ClassVar[bool] = False

    def __init__(self, processes: int, options: Any = None):
        if processes < 1:
            raise MuvlaError("--processes", got=processes, expected="at least 1", remedy="leave it out for the default")
        self.processes, self.options = processes, self.Options() if options is None else options

    @classmethod
    def default_processes(cls, device: str, options: Any) -> int:
        """Cells at once, unless the user says a number. By default what this machine can compute side by side."""
        return usable_cores() if device == "cpu" else 1

    def check(self, device: str) -> None:  # noqa: B027 - most launchers need nothing
        """Raises MuvlaError if no job can start: a missing scheduler, fewer GPUs than asked for. Called once, before
        anything runs.

        Args:
            device: "cpu", "cuda" or "cuda:N".
        """

    def preview(self, cells: int, device: str, threads: int) -> str:
        """The text that the launcher would hand to a scheduler; `muvla sweep --dry-run` prints it.

        Args:
            cells: how many cells would run.
            device: "cpu", "cuda" or "cuda:N".
            threads: CPU threads per cell.

        Raises:
            MuvlaError: the launcher hands no text to anything.
        """
        raise MuvlaError(
            "--dry-run",
            got=f"the launcher {type(self).__name__}, which writes no script",
            expected="a launcher with a batch script, such as slurm",
            remedy="use --plan, which prints the cells and runs nothing",
        )

    @abstractmethod
    def run(
        self,
        jobs: Sequence[Job],
        on_tick: Callable[[list[Progress]], None],
        on_end: Callable[[End], None],
        deadline: float | None = None,
    ) -> None:
        """Runs the jobs and returns when none is left running.

        - Each job runs at most once, by `sweeps.work.run_job(job, report, should_stop)`, whose result is the job's
          status. The order of starts is the order of `jobs`: seeds come whole before the next seed begins.
        - `on_end` is called once for every job that ends by itself, with its status. The sweep marks a job that is
          LOST, so a launcher must report it, or the cell would count as never begun. A job that a signal has ended
          (`End.by_signal`) is not marked: a signal is no fault of the cell, and the same command continues it.
        - `on_tick` is called now and then with what runs, for the progress bar.
        - Both are called in the thread that called `run`. An exception from either must stop the jobs and come out of
          `run`: Ctrl-C arrives in this way.
        - After `deadline` no job starts, and what runs is asked to stop. A job that is asked to stop ends soon with
          STOPPED, and `on_end` is not called for it: its cell is partial, as its folder says.
        - When `run` returns or raises, no job that it started still writes to its folder.

        Args:
            jobs: what is to run, at least one.
            on_tick: called with the jobs that run now.
            on_end: called with each job that has ended.
            deadline: value of `time.monotonic()` at which to stop; None for no limit.
        """
