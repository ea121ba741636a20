"""Cells as jobs of a SLURM cluster: one job array, one task per cell. submitit writes the script and submits it.

- The jobs belong to the scheduler: they survive a logout. The same command later takes up jobs that still wait.
- Before the time limit SLURM sends SIGUSR1. The cell then writes a checkpoint, and its job goes back into the queue.
  The next start continues from the checkpoint.
- The end of a job is its result file. A job without a result that SLURM no longer lists was killed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muvla.errors import MuvlaError
from muvla.utils.foreign import read_model
from muvla.utils.io import write_json
from muvla.utils.packages import import_extra
from sweeps.launchers.base import End, Job, Launcher, Progress, Status
from sweeps.launchers.parcel import pack
from sweeps.launchers.slurm_task import SIGNAL_VARIABLE, SlurmTask

FIELD = "--launcher slurm"
FOLDER = ".slurm"  # of the runs' folder: scripts, logs, results
POLL = 2.0  # seconds between two questions to the scheduler
ABSENT = 3  # questions without an answer about a job, after which the job has ended without a result
PATIENCE = 90.0  # seconds in which cancelled jobs write their checkpoints
ALL = 1000  # cells at once, unless the user says a number: the scheduler decides
GONE = "Invalid job id"  # what squeue says of jobs that have all ended


@dataclass(frozen=True)
class SlurmOptions:
    """Options of the launcher `slurm`.

    Attributes:
        partition: partition of the jobs; empty for the cluster's default.
        account: account that pays; empty for the user's default.
        time: minutes until SLURM ends a job. The job is requeued shortly before.
        memory: GB per cell; 0 for the cluster's default.
        cpus: cores per cell; 0 for `--threads`.
        gpus_per_cell: GPUs per cell; from 2 on, torchrun trains the cell. None for one on `cuda`.
        flags: further options of sbatch, such as `--qos=high --constraint=a100`.
        setup: lines of shell that run before the cell, such as `module load cuda`.
        signal: seconds before the time limit at which the cell writes its checkpoint.
        requeues: starts of one job at most; a cell that needs more is marked as failed.
    """

    partition: str = ""
    account: str = ""
    time: int = 1440
    memory: float = 0.0
    cpus: int = 0
    gpus_per_cell: int | None = None
    flags: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    signal: int = 120
    requeues: int = 20

    def gpus(self, device: str) -> int:
        return (1 if device != "cpu" else 0) if self.gpus_per_cell is None else self.gpus_per_cell


@dataclass
class Submitted:
    """A job in the hands of SLURM."""

    progress: Progress
    job_id: str
    results: Path
    messages: Path
    absent: int = 0
    state: str = field(default="PENDING")

    def poll(self, states: dict[str, str]) -> End | None:
        """Take up messages; the job's end, if it has ended."""
        self.state = states.get(self.job_id, "")
        self.absent = 0 if self.state else self.absent + 1
        with contextlib.suppress(OSError, MuvlaError):
            message, fraction = read_model(self.messages, tuple[str, float])
            self.progress.message, self.progress.fraction = message, fraction
        if self.state.startswith("PENDING"):
            self.progress.message = f"waits in the queue: {self.state.lower()}"
        if self.state:
            return None
        return self._result() or (self._lost() if self.absent > ABSENT else None)

    def _result(self) -> End | None:
        from submitit.core.utils import pickle_load

        if not self.results.exists():
            return None
        outcome, value = pickle_load(self.results)
        if outcome == "success" and value[0] != Status.STOPPED:
            return End(self.progress.job, Status(value[0]), value[1])
        return self._lost("stopped") if outcome == "success" else self._lost(value, by_signal=False)

    def _lost(self, why: str = "", by_signal: bool = True) -> End:
        last = why.strip().splitlines()[-1:] or ["no result"]
        message = f"SLURM job {self.job_id} ended: {describe(self.job_id) or last[0]}"
        return End(self.progress.job, Status.LOST, message, by_signal=by_signal)


class SlurmLauncher(Launcher):
    """One task of a job array per cell."""

    Options = SlurmOptions
    runs_elsewhere = True

    def __init__(self, processes: int, options: SlurmOptions | None = None):
        super().__init__(processes, options)
        os.environ.setdefault(SIGNAL_VARIABLE, "USR1")  # read when submitit is imported
        self._submitit = import_extra("submitit", "slurm")

    @classmethod
    def default_processes(cls, device: str, options: SlurmOptions) -> int:
        return ALL

    def check(self, device: str) -> None:
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise MuvlaError(
                FIELD,
                got=f"no {', '.join(missing)} on the PATH",
                expected="the commands of SLURM",
                remedy="run this command on a login node of the cluster, or use --launcher local",
            )
        status, _, error = _call("squeue", "--noheader", "--states=RUNNING", "--format=%i")
        if status:
            raise MuvlaError(
                FIELD,
                got=f"squeue failed: {error}",
                expected="a scheduler that answers",
                remedy="ask the cluster's operator, or use --launcher local",
            )

    def preview(self, cells: int, device: str, threads: int) -> str:
        from submitit.slurm.slurm import _make_sbatch_string

        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {FOLDER}"
        count = {"map_count": cells} if cells > 1 else {}
        return _make_sbatch_string(command, FOLDER, **self._parameters(device, threads), **count)

    def run(
        self,
        jobs: Sequence[Job],
        on_tick: Callable[[list[Progress]], None],
        on_end: Callable[[End], None],
        deadline: float | None = None,
    ) -> None:
        if deadline is not None and time.monotonic() > deadline:
            return
        running: list[Submitted] = []
        try:
            running += self._submit(jobs)
            while running and (deadline is None or time.monotonic() < deadline):
                time.sleep(POLL)
                states = queue_states({item.job_id for item in running})
                for item in list(running) if states is not None else []:
                    if end := item.poll(states):
                        running.remove(item)
                        on_end(end)
                on_tick([item.progress for item in running])
        finally:
            _cancel(running)

    def _submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Submits what no earlier command has submitted."""
        folder = jobs[0].run.root / FOLDER
        waiting = _waiting_jobs(folder)
        fresh = [job for job in jobs if job.run.train not in waiting]
        ids = dict(waiting)
        if fresh:
            numbers = self._submit_array(folder, fresh)
            ids |= {job.run.train: number for job, number in zip(fresh, numbers, strict=True)}
            array = numbers[0].partition("_")[0]
            write_json(folder / f"{array}.json", {job.run.train: ids[job.run.train] for job in fresh})
        paths = {job.run.train: self._submitit.core.utils.JobPaths(folder, ids[job.run.train], 0) for job in jobs}
        return [
            Submitted(
                Progress(job, "submitted"),
                ids[job.run.train],
                paths[job.run.train].result_pickle,
                messages_file(folder, job),
            )
            for job in jobs
        ]

    def _submit_array(self, folder: Path, jobs: list[Job]) -> list[str]:
        """The job ids, in the order of the jobs."""
        ranks = max(1, self.options.gpus(jobs[0].device))
        parcels = [pack(replace(job, ranks=ranks, at_once=1)) for job in jobs]
        files = [str(messages_file(folder, job)) for job in jobs]
        try:
            executor = self._submitit.SlurmExecutor(folder, max_num_timeout=self.options.requeues)
            executor.update_parameters(**self._parameters(jobs[0].device, jobs[0].threads))
            submitted = executor.map_array(SlurmTask(self.options.requeues), parcels, files)
        except (RuntimeError, OSError) as error:  # submitit's errors are RuntimeErrors
            raise MuvlaError(
                FIELD,
                got=f"sbatch refused the jobs: {' '.join(str(error).split())[-400:]}",
                expected="resources that the cluster has",
                remedy="`sinfo` lists partitions and their limits; change --option, or ask for fewer GPUs",
            ) from error
        return [job.job_id for job in submitted]

    def _parameters(self, device: str, threads: int) -> dict[str, Any]:
        """Parameters of submitit."""
        options = self.options
        paths = os.pathsep.join(os.path.abspath(place) for place in sys.path)
        chosen = {
            "job_name": "muvla",
            "time": options.time,
            "cpus_per_task": options.cpus or threads * max(1, options.gpus(device)),
            "signal_delay_s": options.signal,
            "array_parallelism": self.processes,
            "setup": [f"export PYTHONPATH={shlex.quote(paths)}", f"export {SIGNAL_VARIABLE}=USR1", *options.setup],
            "additional_parameters": {"requeue": True, **_sbatch_options(options.flags)},
        }
        chosen |= {name: value for name in ("partition", "account") if (value := getattr(options, name))}
        if options.memory:
            chosen["mem"] = f"{int(options.memory * 1024)}MB"
        if gpus := options.gpus(device):
            chosen["gpus_per_node"] = gpus
        return chosen


def messages_file(folder: Path, job: Job) -> Path:
    """The file in which a running job tells what it does."""
    return folder / f"{job.run.train}.progress"


def _sbatch_options(flags: tuple[str, ...]) -> dict[str, Any]:
    """`--qos=high` → {"qos": "high"}; an option without a value becomes True."""
    chosen: dict[str, Any] = {}
    for flag in flags:
        name, sign, value = flag.partition("=")
        if not name.startswith("--") or len(name) < 3:
            raise MuvlaError(
                "--option flags",
                got=flag,
                expected="long options of sbatch with `=`, such as --qos=high",
                remedy="write the option's long name; `man sbatch` lists all",
            )
        chosen[name.removeprefix("--")] = value if sign else True
    return chosen


def _waiting_jobs(folder: Path) -> dict[str, str]:
    """Train id → job id of the jobs that earlier commands submitted and that SLURM still lists."""
    submitted: dict[str, str] = {}
    for file in sorted(folder.glob("*.json")):
        submitted |= read_model(file, dict[str, str])
    states = queue_states(set(submitted.values())) if submitted else {}
    return {train: number for train, number in submitted.items() if number in (states or {})}


def queue_states(numbers: set[str]) -> dict[str, str] | None:
    """Job id → state and reason of the jobs that are in the queue or run; None if the scheduler does not answer."""
    arrays = ",".join(sorted({number.partition("_")[0] for number in numbers}))
    status, lines, error = _call("squeue", "--noheader", "--array", f"--jobs={arrays}", "--format=%i|%T (%r)")
    if status and GONE not in error:
        return None
    return dict(line.split("|", 1) for line in lines.splitlines() if "|" in line)


def describe(number: str) -> str:
    """State, exit status and node of a job that has ended, as far as SLURM still knows them."""
    _, text, _ = _call("scontrol", "show", "job", number, "--oneliner")
    facts = dict(part.split("=", 1) for part in text.split() if "=" in part)
    chosen = {name: facts.get(name, "") for name in ("JobState", "Reason", "ExitCode", "NodeList")}
    if not chosen["JobState"]:
        return ""
    return f"{chosen['JobState']}, reason {chosen['Reason']}, status {chosen['ExitCode']}, on {chosen['NodeList']}"


def _cancel(running: list[Submitted]) -> None:
    """Cancels jobs, which makes a running cell write a checkpoint, and waits until none runs."""
    numbers = {item.job_id for item in running}
    if not numbers:
        return
    _call("scancel", *sorted(numbers))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and (states := queue_states(numbers)) is not None and numbers & states.keys():
        time.sleep(POLL / 2)


def _call(*command: str) -> tuple[int, str, str]:
    """Exit status, output and error of a command of SLURM."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr.strip()
