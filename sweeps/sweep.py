"""Runs a study: the plan, the cells side by side, a line per finished cell, a clean stop at the time limit."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muvla.data.store import EpisodeStore
from muvla.errors import Interrupted, MuvlaError
from muvla.evaluation.records import summarise
from muvla.training.one_pass import require_one_pass
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.vision_cache import require_cacheable
from muvla.utils.foreign import read_model
from muvla.utils.locks import require_locks, watch
from sweeps.baselines import measure_baselines, without_simulator
from sweeps.estimate import Estimate, calibrate, estimate, finished_costs
from sweeps.launchers.base import End, Job, Progress, Status
from sweeps.launchers.registry import make_launcher
from sweeps.ledger import Entry, Ledger
from sweeps.plan import plan_text
from sweeps.progress import CellProgress
from sweeps.stored_weights import require_weights, storing
from sweeps.study import Study
from sweeps.tracking.view import TrackingView
from sweeps.turns import in_turn, sweep_number
from sweeps.work import SANITY_CHECK

BASELINES_TITLE = "\nChance and baselines (of a simulator's tasks: `muvla baselines STUDY`):"


@dataclass(frozen=True)
class SweepOptions:
    """How a study runs; no option changes a number.

    Attributes:
        processes: cells at once.
        device: "cpu", "cuda" or "cuda:N".
        threads: CPU threads per process.
        time_limit: seconds after which the sweep stops cleanly; None for no limit.
        track: whether cells are shown in a tracker.
        retry_failed: whether marked cells and episodes that ended in an error run again.
        plan_only: whether to print the plan and to run nothing.
        calibrate: whether a plan trains a few updates of every variant to estimate its cost.
        training: how the cells are trained.
        workers: environments of a cell side by side; None for a default.
        launcher: name of the launcher that runs the cells.
        launch: option of the launcher → value, or its text.
        dry_run: whether to print what the launcher would hand to a scheduler, and to run nothing.
        tracker: name of the tracker.
    """

    processes: int
    device: str = "cpu"
    threads: int = 1
    time_limit: float | None = None
    track: bool = True
    retry_failed: bool = False
    plan_only: bool = False
    calibrate: bool = False
    training: TrainingOptions = DEFAULT
    workers: int | None = None
    launcher: str = "local"
    launch: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    tracker: str = "mlflow"

    def __post_init__(self):
        for name, value in (("processes", self.processes), ("threads", self.threads)):
            if value < 1:
                raise MuvlaError(
                    f"--{name}", got=value, expected="at least 1", remedy="leave the option out for its default"
                )
        if self.time_limit is not None and self.time_limit <= 0:
            raise MuvlaError(
                "--time-limit", got=self.time_limit, expected="more than 0", remedy="leave it out for no limit"
            )


@dataclass(frozen=True)
class SweepResult:
    """The cells after a sweep.

    Attributes:
        entries: every cell of the study.
        not_run: cells that are neither done nor marked: after the time limit or a stop, or while another process works
            on them.
        failed: cells that are marked or damaged, or that a full disk or a signal stopped.
        cost: of a plan, what the cells that are left cost.
    """

    entries: list[Entry]
    not_run: list[Entry]
    failed: list[Entry]
    cost: Estimate | None = None


def run_study(
    study: Study,
    ledger: Ledger,
    options: SweepOptions,
    say: Callable[[str], None] = print,
    on_finished: Callable[[Entry], None] = lambda _: None,
    on_start: Callable[[], object] = lambda: None,
) -> SweepResult:
    """Runs every cell of a study that is not done.

    Args:
        study: the study.
        ledger: where run folders and datasets are.
        options: how to run the cells.
        say: called with each line of output.
        on_finished: called with each cell that has ended, for whoever keeps a view of the results. If the function
            raises, the sweep warns, goes on and does not call it again.
        on_start: called once, when the data are there and before the first cell runs.

    Returns:
        The cells, with the failed ones. A failed cell raises nothing.

    Raises:
        MuvlaError: if two cells differ in an undeclared field, if something does not fit, or for an unknown launcher.
    """
    launcher = make_launcher(options.launcher, options.processes, options.launch)
    study.check()
    require_runnable(study, options)
    if (options.plan_only or options.dry_run) and not ledger.has_data(study):
        say(plan_text(study, None, None))
        if options.dry_run:
            say("\n" + launcher.preview(len(study.cells()), options.device, options.threads))
        return SweepResult([], [], [])
    stores, entries, states = _open(study, ledger, say)
    if options.plan_only:
        lines = (f"{e.run.train}  {state:10}  {e.item.label}" for e, state in zip(entries, states, strict=True))
        say("\n" + "\n".join(lines))
        cost = _estimate(entries, states, stores, options)
        say("\n" + cost.line(options.processes))
        return SweepResult(entries, [], [], cost)
    if options.dry_run:
        cells = sum(state in ("planned", "partial") for state in states)
        say("\n" + launcher.preview(cells, options.device, options.threads))
        return SweepResult(entries, [], [])
    launcher.check(options.device)
    require_locks(ledger.root)
    on_start()
    try:
        _measure_baselines(study, ledger, options, say)
    except Interrupted:
        say("The time limit was reached in them; the cells follow with the same command.")
        return SweepResult(entries, [e for e in entries if e.state != "done"], [])
    view = TrackingView(options.tracker if options.track else None, ledger.root, study)
    view.reconcile([e for e, state in zip(entries, states, strict=True) if state == "done"])
    finishing = Finishing(view, say, on_finished)
    failed = run_rounds(entries, options, finishing)
    failed = _say_failures(entries, say) + failed
    return SweepResult(entries, [e for e in entries if e.state != "done" and e not in failed], failed)


def _open(
    study: Study, ledger: Ledger, say: Callable[[str], None]
) -> tuple[dict[str, EpisodeStore], list[Entry], list[str]]:
    """The data by variant, collected where they lack, the cells and their states. Says the plan."""
    stores = ledger.stores(study, _collection_progress(say))
    entries = ledger.entries(study, stores)
    require_weights(entries)
    states = [entry.state for entry in entries]
    say(plan_text(study, entries, stores, states))
    return stores, entries, states


def _estimate(
    entries: list[Entry], states: list[str], stores: Mapping[str, EpisodeStore], options: SweepOptions
) -> Estimate:
    """The cost of the cells that are left, by finished cells; with `calibrate` the other variants are calibrated."""
    costs = finished_costs(entries, states)
    if options.calibrate:
        for entry in entries:
            variant = entry.item.variant
            if variant not in costs:
                costs[variant] = calibrate(entry, stores[variant], options.device)
    return estimate(entries, states, costs)


def _measure_baselines(study: Study, ledger: Ledger, options: SweepOptions, say: Callable[[str], None]) -> None:
    """Measures the baselines that need no simulator. Their time limit is separate: the cells' limit begins later."""
    cheap = without_simulator(study.baseline_protocols)
    if cheap:
        say(BASELINES_TITLE)
    deadline = time.monotonic() + (options.time_limit or math.inf)
    measure_baselines(cheap, ledger, say, lambda: time.monotonic() > deadline, options.retry_failed)


def clear_failures(entries: Sequence[Entry]) -> None:
    """Removes the marks of failed cells, so that they run again. Damaged cells stay as they are."""
    for entry in entries:
        if not entry.damage:
            entry.run.clear_failure()


def _select(entries: list[Entry], options: SweepOptions, say: Callable[[str], None]) -> list[Entry]:
    """The cells that are neither done nor marked nor in work; with `retry_failed` also marked ones."""
    if options.retry_failed:
        clear_failures(entries)
    retries = [e for e in entries if options.retry_failed and e.state == "done" and e.missing(retry_errors=True)]
    todo = [e for e in entries if e.state in ("planned", "partial")] + retries
    done = sum(e.state == "done" for e in entries) - len(retries)
    say(f"\n{done} cells are done and skipped, {len(todo)} to run in {options.processes} processes.")
    for entry in (e for e in entries if e.state == "running"):
        say(f"{entry.item.label}: {entry.run.owner} works on it")
    return todo


def run_rounds(entries: list[Entry], options: SweepOptions, finishing: Finishing) -> list[Entry]:
    """Runs the cells that are free by the launcher of the options, then those that other processes held and left.

    Returns the entries that a full disk stopped, and those whose process a signal ended.
    """
    if not entries:
        return []
    deadline = time.monotonic() + options.time_limit if options.time_limit else None
    stopped_by_machine: list[Entry] = []
    with sweep_number(entries[0].run.root) as number:
        todo = _select(entries, options, finishing.say)
        while True:
            if todo:
                stopped_by_machine += _run_cells(in_turn(todo, number), options, finishing, deadline)
            todo = [e for e in _freed(entries, deadline, finishing.say) if e not in stopped_by_machine]
            if not todo:
                return stopped_by_machine


def _freed(entries: list[Entry], deadline: float | None, say: Callable[[str], None]) -> list[Entry]:
    """The unfinished cells whose processes have ended since. Says who works on the others."""

    def is_early() -> bool:
        return deadline is None or time.monotonic() < deadline

    held = [entry for entry in entries if entry.state == "running"]
    owners = watch([entry.run.lock for entry in held], is_early)
    for entry in held:
        if owner := owners.get(entry.run.lock):
            say(f"{entry.item.label}: {owner} works on it")
    free = [entry for entry in held if entry.run.lock not in owners] if is_early() else []
    return [entry for entry in free if entry.state in ("planned", "partial")]


def _say_failures(entries: list[Entry], say: Callable[[str], None]) -> list[Entry]:
    """Returns the marked and the damaged entries."""
    failed = []
    for entry in entries:
        contents = entry.read()
        if failure := contents.failure:
            say(f"{entry.item.label}: {failure['kind']}: {failure['error']}")
            say(f"  details in {entry.run.folder / 'failure.json'}; run again with --retry-failed only")
        for error in contents.damage:
            say(f"{entry.item.label}: damaged, not run and in no table: {error}")
        if contents.failure or contents.damage:
            failed.append(entry)
        errors = sum(summarise(rows).errors for rows in contents.complete_rows().values())
        if errors:
            say(f"{entry.item.label}: {errors} episodes ended in an error, count in no rate; --retry-failed runs them")
    return failed


@dataclass
class Finishing:
    """Updates the views of the results when a cell has ended."""

    view: TrackingView
    say: Callable[[str], None]
    on_finished: Callable[[Entry], None]

    def __call__(self, entry: Entry) -> None:
        self.view.log(entry)
        try:
            self.on_finished(entry)
        except Exception as error:
            self.on_finished = lambda _: None
            warnings.warn(f"a view of the results is off for this sweep ({error}); results are kept", stacklevel=2)


def _run_cells(todo: list[Entry], options: SweepOptions, finishing: Finishing, deadline: float | None) -> list[Entry]:
    """Returns the entries that a full disk stopped, and those whose process a signal ended."""
    by_train = {entry.run.train: entry for entry in todo}
    jobs = _jobs(todo, options)
    started = time.monotonic()
    finished: list[Entry] = []
    stopped_by_machine: list[Entry] = []
    with CellProgress(len(jobs), finishing.say) as progress:
        write = progress.write

        def on_tick(running: list[Progress]) -> None:
            progress.show(len(finished), running)
            finishing.view.look(by_train[each.job.run.train] for each in running)

        def on_end(end: End) -> None:
            entry = by_train[end.job.run.train]
            finished.append(entry)
            if end.status == Status.BUSY:
                return
            if end.status == Status.NO_DISK:
                stopped_by_machine.append(entry)
                write(f"{entry.item.label}: {end.message}")
            elif end.status == Status.LOST and end.by_signal:  # a signal says nothing about the cell
                stopped_by_machine.append(entry)
                write(f"{entry.item.label}: {end.message}; not marked, the same command continues the cell")
            elif end.status == Status.LOST:  # it could not mark its cell
                entry.run.fail("failed", end.message)
            finishing(entry)
            write(finished_line(entry, len(finished), len(jobs), time.monotonic() - started))
            if (lines_of_check := entry.run.folder / SANITY_CHECK).exists():
                for protocol, lines in read_model(lines_of_check, list[tuple[str, list[str]]]):
                    write("\n".join([f"{entry.item.label}, {protocol}:", *lines]))

        launcher = make_launcher(options.launcher, options.processes, options.launch)
        launcher.run(jobs, on_tick, on_end, deadline)
    return stopped_by_machine


def _jobs(todo: list[Entry], options: SweepOptions) -> list[Job]:
    pauses = options.training.until is not None  # a paused training is not evaluated
    return [
        Job(
            label=entry.item.label,
            run=entry.run.absolute(),
            cell=entry.item.cell,
            missing=() if pauses else tuple(entry.missing(options.retry_failed)),
            device=options.device,
            threads=options.threads,
            retry_errors=options.retry_failed,
            options=storing(options.training, entry.study, entry.item.cell),
            workers=options.workers,
            measurements=() if pauses else tuple(entry.missing_measurements),
            at_once=min(options.processes, len(todo)),
        )
        for entry in todo
    ]


def finished_line(entry: Entry, number: int, total: int, seconds: float) -> str:
    """One row of the growing table: the plain run, then choice accuracy given a touch under each intervention.

    Args:
        entry: the cell that has ended.
        number: how many cells have ended.
        total: how many cells the sweep runs.
        seconds: since the first cell began.
    """
    head = f"[{number:2d}/{total}] {seconds:5.0f} s  {entry.item.label:22}"
    if entry.state != "done":
        return f"{head} {entry.state}"
    protocols = entry.study.protocols
    names = ("none", *entry.study.interventions_of(entry.item.cell))
    declared = {(protocol.id, name) for protocol in protocols for name in names}
    parts = []
    for (protocol, name), summary in entry.summaries().items():
        if (protocol, name) not in declared:
            continue  # a point of a grid: the report draws it
        choice = _two_digits(summary.choice_accuracy)
        if name == "none":
            touch, success = _two_digits(summary.touch_rate), _two_digits(summary.success_rate)
            text = f"touch {touch} choice {choice} success {success}"
        else:
            text = f"{name} {choice}"
        parts.append((protocol, text))
    parts += [(protocol, f"{name} never fired") for protocol, name in entry.never_fired if (protocol, name) in declared]
    if len(protocols) > 1:
        return f"{head} {' | '.join(f'{protocol} {text}' for protocol, text in parts)}"
    return f"{head} {' | '.join(text for _, text in parts)}"


def _two_digits(rate: float | None) -> str:
    return "  – " if rate is None else f"{rate:.2f}"


def _collection_progress(say: Callable[[str], None]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done % max(1, total // 4) == 0:
            say(f"collecting demonstrations: {done}/{total}")

    return progress


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """`0,1` → (0, 1); None stays None. Raises MuvlaError for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise MuvlaError(
            "--seeds", got=text, expected="whole numbers", remedy="separate them by commas, for example 0,1"
        ) from None


def require_runnable(study: Study, options: SweepOptions) -> None:
    """Refuses, before anything is written, a study that cannot be run with these options."""
    if not study.protocols:
        raise MuvlaError(
            f"study {study.name}, protocols",
            got="nothing",
            expected="at least one evaluation of the cells",
            remedy="add a protocol; `muvla ls protocols` lists them",
        )
    if options.training.cached_vision:
        for item in study.cells():
            require_cacheable(item.cell)
    if options.training.one_pass:
        for item in study.cells():
            require_one_pass(item.cell)
