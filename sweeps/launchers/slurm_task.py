"""The work of a SLURM job: one cell, with a checkpoint and a requeue before the time limit."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvla.utils.io import write_json
from sweeps.launchers.base import Status
from sweeps.launchers.parcel import Parcel, unpack
from sweeps.work import run_job

SIGNAL_VARIABLE = "SUBMITIT_PREEMPT_SIGNAL"  # environment variable: the signal before the time limit, for submitit
REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)  # the job goes back into the queue
EVERY = 2.0  # seconds between two messages


@dataclass(frozen=True)
class SlurmTask:
    """A callable that submitit pickles. Its result is the job's status and last message.

    Attributes:
        requeues: starts of the job at most.
    """

    requeues: int

    def __call__(self, parcel: Parcel, messages: str) -> tuple[int, str]:
        requeue = signal.getsignal(signal.SIGUSR1)  # submitit's: puts the job back into the queue and exits
        asked: list[int] = []
        for number in (signal.SIGTERM, *REQUEUE):
            signal.signal(number, lambda number, _: asked.append(number))
        # SLURM signals every process of the job. Blocked signals stay blocked in the cell's own processes, which would
        # die of them; a thread of this process takes the signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, REQUEUE)
        threading.Thread(target=lambda: asked.append(signal.sigwait(REQUEUE)), daemon=True).start()
        job, reporter = unpack(parcel), Reporter(Path(messages))
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if restarts > self.requeues:
            job.run.fail("failed", f"SLURM started the job {restarts + 1} times, and the cell never came to its end")
            return int(Status.MARKED), "started too often"
        status = run_job(job, reporter, lambda: bool(asked))
        if status == Status.STOPPED and asked[0] in REQUEUE:
            requeue(asked[0], None)
        return int(status), reporter.message

    def checkpoint(self, *arguments: Any):
        """The call that submitit runs after the requeue: the same cell, which continues from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class Reporter:
    """Writes the job's messages to a file, at most every EVERY seconds."""

    def __init__(self, file: Path):
        self.file, self.message, self._last = file, "starting", -EVERY

    def __call__(self, message: str, fraction: float) -> None:
        self.message = message
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            write_json(self.file, [message, fraction])
