"""The work of one cell: train, evaluate, intervene, measure. It is the same under every launcher."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import torch

from muvla.data.mixture import open_data
from muvla.errors import Busy, DiskError, Interrupted, RankLost
from muvla.evaluation.context import default_workers
from muvla.evaluation.records import summarise
from muvla.evaluation.results import NeverFired
from muvla.models.compilation import compile_step
from muvla.runs.evaluate import Evaluator
from muvla.runs.probe import take_measurement
from muvla.runs.sanity_check import sanity_check
from muvla.runs.train import train_cell
from muvla.training.run import Progress
from muvla.utils.io import disk_errors, write_json
from sweeps.launchers.base import Job, Status
from sweeps.ranks import train_in_ranks

SANITY_CHECK = "looks.json"  # of a run: lines of the sanity check, by protocol without any success
TRAINING = 8  # parts of the progress bar; evaluating one condition and taking one measurement are one part each

Report = Callable[[str, float], None]  # (what the job does, share of the work that is done)


def run_job(job: Job, report: Report, should_stop: Callable[[], bool]) -> Status:
    """`bring_to_end` with the job's threads, and with its output in `log.txt` of the run folder.

    Args:
        job: the job.
        report: called with a message and the share of the work that is done.
        should_stop: asked at every update and episode; the job then writes what it has and ends.

    Returns:
        How the job ended; never LOST, which is a launcher's to say.
    """
    log_file = job.run.folder / "log.txt"
    try:
        with disk_errors(log_file):
            job.run.folder.mkdir(parents=True, exist_ok=True)
            log = log_file.open("a", buffering=1)
    except DiskError as error:
        report(str(error), 1.0)
        return Status.NO_DISK
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        with log, redirect_stdout(log), redirect_stderr(log):
            return bring_to_end(job, report, should_stop)
    finally:
        torch.set_num_threads(threads)


def bring_to_end(job: Job, report: Report, should_stop: Callable[[], bool]) -> Status:
    """Trains, evaluates and measures one cell, with its output to standard output; see `run_job`."""
    try:
        with job.run.working():
            if job.run.failure:  # another sweep has marked the cell since the plan was made
                return Status.MARKED
            (job.run.folder / SANITY_CHECK).unlink(missing_ok=True)
            _train(job, report, should_stop)
            if job.options.until is not None:  # a pause of a tuning: whether the cell goes on is decided elsewhere
                return Status.DONE
            evaluator = Evaluator(job.run, job.device, should_stop=should_stop)
            if job.options.compiled:
                compile_step(evaluator.policy)
            _evaluate(job, evaluator, report)
            for i, scheduled in enumerate(job.measurements, start=len(job.missing)):
                report(f"{scheduled.protocol.id} {scheduled.id}", _share(job, i))
                take_measurement(evaluator, scheduled)
    except Interrupted:
        return Status.STOPPED
    except (DiskError, RankLost) as error:
        report(str(error), 1.0)  # not to the log, which is on the same disk
        return Status.NO_DISK
    except Busy as error:
        report(error.got, 1.0)
        return Status.BUSY
    except Exception as error:
        with contextlib.suppress(OSError):
            print(f"{type(error).__name__}: {error}")
        return Status.MARKED
    return Status.DONE


def _share(job: Job, parts: float) -> float:
    """The share of the work that is done after the training and `parts` parts more."""
    return (TRAINING + parts) / (TRAINING + len(job.missing) + len(job.measurements))


def _train(job: Job, report: Report, should_stop: Callable[[], bool]) -> None:
    def training(p: Progress) -> None:
        done = f"update {p.update}/{p.updates} loss {p.loss:.3f} {p.frames_per_second:.0f} frames/s"
        report(done, _share(job, TRAINING * (p.update / p.updates - 1)))

    if job.ranks > 1:
        if not (job.run.is_created and job.run.is_trained):
            train_in_ranks(job, training, should_stop)
        return
    store = open_data(job.run.data, job.cell.data)
    train_cell(job.run, job.cell, store, job.device, training, should_stop, job.options)


def _evaluate(job: Job, evaluator: Evaluator, report: Report) -> None:
    """Evaluates the missing conditions. Under a protocol without any success, writes the sanity check to looks.json."""
    checks: list[tuple[str, list[str]]] = []  # protocol id, lines
    for i, (protocol, name) in enumerate(job.missing):
        report(f"{protocol.id} {name}", _share(job, i))
        workers = job.workers or default_workers(protocol, job.at_once)
        try:
            rows = evaluator.evaluate(protocol, name, job.retry_errors, workers)
        except NeverFired as error:  # no failure of the cell or of its other conditions; the folder keeps it
            print(f"{protocol.id} {name}: never fired: {error}")
            continue
        if name == "none" and protocol.update is None and summarise(rows).success_rate == 0:
            report(f"{protocol.id} sanity check", _share(job, i + 1))
            checks.append((protocol.id, sanity_check(evaluator, protocol, name, workers)))
            write_json(job.run.folder / SANITY_CHECK, checks)
