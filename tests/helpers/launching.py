"""Run the jobs of a sweep in this process, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sweeps.launchers.base import End, Job, Status
from sweeps.launchers.local import LocalLauncher
from sweeps.work import run_job


def run_in_order(monkeypatch, order: Callable[[Sequence[Job]], Iterable[Job]] | None = None) -> list[str]:
    """Let the local launcher run its jobs one after the other in this process.

    Args:
        monkeypatch: pytest's fixture or a context of it.
        order: the jobs in the order in which they run; it may raise. None keeps the order.

    Returns:
        The labels of the jobs that have run, which grows with each job.
    """
    ran: list[str] = []

    def run(self, jobs, on_tick, on_end, deadline=None):
        for job in order(jobs) if order else jobs:
            status = run_job(job, lambda *_: None, lambda: False)
            ran.append(job.label)
            if status != Status.STOPPED:
                on_end(End(job, status))

    monkeypatch.setattr(LocalLauncher, "run", run)
    return ran
