"""Running a study: plan, cells in parallel, a line per finished cell, a clean stop at the time limit."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from muvla.data.store import EpisodeStore
from muvla.errors import Interrupted, MuvlaError
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.vision_cache import require_cacheable
from muvla.utils.devices import usable_cores
from muvla.utils.io import read_json
from sweeps.baselines import measure_baselines, without_simulator
from sweeps.launchers.local import DONE, LOOKS, MARKED, NO_DISK, STOPPED, Job, Pool, Running
from sweeps.ledger import Entry, Ledger
from sweeps.plan import plan_text
from sweeps.study import Study
from sweeps.tracking import Tracker


@dataclass(frozen=True)
class SweepOptions:
    processes: int
    device: str = "cpu"
    threads: int = 1  # per process
    time_limit: float | None = None  # seconds
    track: bool = True
    retry_failed: bool = False  # marked cells, and episodes that ended in an error
    plan_only: bool = False
    training: TrainingOptions = DEFAULT
    workers: int | None = None  # environments of a cell side by side

    def __post_init__(self):
        for name, value in (("processes", self.processes), ("threads", self.threads)):
            if value < 1:
                raise MuvlaError(f"--{name}", got=value, expected="at least 1", remedy="correct it")
        if self.time_limit is not None and self.time_limit <= 0:
            raise MuvlaError(
                "--time-limit", got=self.time_limit, expected="more than 0", remedy="leave it out for none"
            )


@dataclass(frozen=True)
class SweepResult:
    entries: list[Entry]
    not_run: list[Entry]  # nor marked: the time limit, a stop from outside, or another process that works on it
    failed: list[Entry]  # marked, or stopped by a full disk


def run_study(study: Study, ledger: Ledger, options: SweepOptions, say: Callable[[str], None] = print) -> SweepResult:
    """Raises MuvlaError if two cells differ in anything undeclared; failures of single cells are in the result."""
    study.check()
    if options.training.cached_vision:  # before any cell is marked
        for item in study.cells():
            require_cacheable(item.cell)
    if options.plan_only and not ledger.has_data(study):
        say(plan_text(study, None, None))
        return SweepResult([], [], [])
    stores = ledger.stores(study, _collection_progress(say))
    entries = ledger.entries(study, stores)
    say(plan_text(study, entries, stores))
    if options.plan_only:
        say("\n" + "\n".join(f"{e.run.train}  {e.state:10}  {e.item.label}" for e in entries))
        return SweepResult(entries, [], [])
    cheap = without_simulator(study.protocols)
    say("\nChance and baselines (of a simulator's tasks: `muvla baselines STUDY`):" * bool(cheap))
    deadline = time.monotonic() + (options.time_limit or math.inf)  # the cells' own begins with them
    try:
        measure_baselines(cheap, ledger, say, lambda: time.monotonic() > deadline, options.retry_failed)
    except Interrupted:
        say("The time limit was reached in them; the cells follow with the same command.")
        return SweepResult(entries, [e for e in entries if e.state != "done"], [])
    tracker = Tracker(ledger.root / "mlflow.db" if options.track else None, study.name)
    tracker.backfill([e for e in entries if e.state == "done"])
    if options.retry_failed:
        for entry in entries:
            entry.run.clear_failure()
    retries = [e for e in entries if options.retry_failed and e.state == "done" and e.missing(retry_errors=True)]
    todo = [e for e in entries if e.state in ("planned", "partial")] + retries
    done = sum(e.state == "done" for e in entries) - len(retries)
    say(f"\n{done} cells are done and skipped, {len(todo)} to run in {options.processes} processes.")
    for entry in (e for e in entries if e.state == "running"):
        say(f"{entry.item.label}: process {entry.run.owner} works on it, skipped here")
    failed = _run_cells(todo, stores, options, tracker, say)
    failed = _say_failures(entries, say) + failed
    return SweepResult(entries, [e for e in entries if e.state != "done" and e not in failed], failed)


def _say_failures(entries: list[Entry], say: Callable[[str], None]) -> list[Entry]:
    """Returns the marked entries."""
    marked = [e for e in entries if e.run.failure]
    for entry in marked:
        failure = entry.run.failure
        say(f"{entry.item.label}: {failure['kind']}: {failure['error']}")
        say(f"  details in {entry.run.folder / 'failure.json'}; not retried unless you say --retry-failed")
    for entry in entries:
        errors = sum(s.errors for s in entry.summaries().values())
        if errors:
            say(
                f"{entry.item.label}: {errors} episodes ended in an error and are in no rate (--retry-failed runs them)"
            )
    return marked


def _run_cells(
    todo: list[Entry], stores: dict[str, EpisodeStore], options: SweepOptions, tracker: Tracker, say
) -> list[Entry]:
    """Returns the entries that a full disk stopped."""
    by_train = {entry.run.train: entry for entry in todo}
    at_once = max(1, min(options.processes, len(todo)))
    jobs = [
        Job(
            e.item.label,
            e.run,
            e.item.cell,
            tuple(e.missing(options.retry_failed)),
            options.device,
            options.threads,
            options.retry_failed,
            options.training,
            options.workers,
            tuple(e.missing_measurements),
            at_once,
        )
        for e in todo
    ]
    started = time.monotonic()
    deadline = started + options.time_limit if options.time_limit else None
    finished: list[Entry] = []
    without_disk: list[Entry] = []
    with tqdm(
        total=len(jobs),
        unit="cell",
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        bar_format="{n:.2f}/{total} cells [{elapsed}<{remaining}] {postfix}",
    ) as bar:

        def write(line: str) -> None:
            say(line) if bar.disable else tqdm.write(line)

        def on_tick(running: list[Running]) -> None:
            bar.n = len(finished) + sum(one.fraction for one in running)
            bar.set_postfix_str(" | ".join(f"{one.job.label}: {one.message}" for one in running))

        def on_end(one: Running, status: int) -> None:
            entry = by_train[one.job.run.train]
            finished.append(entry)
            if status == NO_DISK:
                without_disk.append(entry)
                write(f"{entry.item.label}: {one.message}")
            elif status not in (DONE, MARKED, STOPPED):  # it could not mark its cell
                entry.run.fail("failed", f"its process ended with status {status} (killed, or out of memory)")
            tracker.log(entry)
            write(finished_line(entry, len(finished), len(jobs), time.monotonic() - started))
            if (looks := entry.run.folder / LOOKS).exists():
                for protocol, lines in read_json(looks):
                    write("\n".join([f"{entry.item.label}, {protocol}:", *lines]))

        Pool(options.processes).run(jobs, on_tick, on_end, deadline)
    return without_disk


def finished_line(entry: Entry, number: int, total: int, seconds: float) -> str:
    """One row of the growing table: the plain run, then choice accuracy given a touch under each intervention."""
    head = f"[{number:2d}/{total}] {seconds:5.0f} s  {entry.item.label:22}"
    if entry.state != "done":
        return f"{head} {entry.state}"
    parts, several = [], len(entry.study.protocols) > 1
    own = {(one.id, kind) for one in entry.study.protocols for kind in ("none", *entry.study.interventions)}
    for (name, kind), s in entry.summaries().items():
        if (name, kind) not in own:
            continue  # a probe's point: the report draws it
        where = f"{name} " * several
        choice = _two_digits(s.choice_accuracy)
        if kind == "none":
            touch, success = _two_digits(s.touch_rate), _two_digits(s.success_rate)
            parts.append(f"{where}touch {touch} choice {choice} success {success}")
        else:
            parts.append(f"{where}{kind} {choice}")
    parts += [f"{name} " * several + f"{kind} never fired" for name, kind in entry.never_fired if (name, kind) in own]
    return f"{head} {' | '.join(parts)}"


def _two_digits(rate: float | None) -> str:
    return "  – " if rate is None else f"{rate:.2f}"


def _collection_progress(say) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done % max(1, total // 4) == 0:
            say(f"collecting demonstrations: {done}/{total}")

    return progress


def default_processes(device: str) -> int:
    """One per core that this process may use; one on a GPU, which cells would share."""
    return usable_cores() if device == "cpu" else 1


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """`0,1` → (0, 1); None stays None. Raises MuvlaError for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise MuvlaError("--seeds", got=text, expected="numbers like 0,1", remedy="correct it") from None
