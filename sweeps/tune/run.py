"""Run a tuning: batches of trials as cells of the ledger, rungs, rows.

The rows follow from the run folders alone, and are written anew after every stage. A tuning that is killed continues
with the same command, because its finished cells are in the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from muvla.evaluation.records import summarise
from muvla.runs.status import updates_done
from muvla.utils.io import write_atomically
from muvla.utils.locks import require_locks
from sweeps.launchers.registry import make_launcher
from sweeps.ledger import Entry, Ledger
from sweeps.sweep import Finishing, SweepOptions, clear_failures, run_rounds
from sweeps.tracking.view import TrackingView
from sweeps.tune.halving import Standing, survivors, training_loss
from sweeps.tune.space import Recipe
from sweeps.tune.trials import COMPLETE, FAILED, PRUNED, TrialRow
from sweeps.tune.tuning import Tuning

ROWS = "trials.jsonl"


@dataclass
class Trial:
    """A trial of the running batch.

    Attributes:
        number: number of the trial among the variant's trials.
        variant: name of the variant.
        recipe: the values of the tuned fields.
        entries: its cells, by training seed.
        losses: update of a rung → mean training loss over the seeds.
        outcome: None while the trial goes on.
    """

    number: int
    variant: str
    recipe: Recipe
    entries: list[Entry]
    losses: dict[int, float]
    outcome: str | None = None

    def row(self) -> TrialRow:
        """The row of a trial with an outcome."""
        frames = self.entries[0].item.cell.effective_budget.total_frames
        train = tuple(entry.run.train for entry in self.entries)
        row = TrialRow(self.number, self.variant, self.outcome, self.recipe, frames, train, losses=dict(self.losses))
        if self.outcome == FAILED:
            return replace(row, error="; ".join(filter(None, map(_problem, self.entries))))
        if self.outcome == PRUNED:
            return row
        rates = {e.item.cell.seed: _success(e) for e in self.entries}
        return replace(row, success=rates, mean=sum(rates.values()) / len(rates))


@dataclass(frozen=True)
class TuningResult:
    """The trials after a run.

    Attributes:
        rows: every trial with an outcome, by variant and number.
        unfinished: labels of the cells that a stop, the time limit or another process left open.
    """

    rows: list[TrialRow]
    unfinished: list[str]


def run_tuning(
    tuning: Tuning,
    ledger: Ledger,
    options: SweepOptions,
    folder: Path,
    say: Callable[[str], None] = print,
    on_stage: Callable[[list[TrialRow]], None] = lambda _: None,
) -> TuningResult:
    """Runs every trial that is not done.

    Args:
        tuning: the tuning.
        ledger: run folders and datasets.
        options: how to run the cells.
        folder: receives `trials.jsonl`.
        say: called with each line of output.
        on_stage: called with all rows whenever rows were added, for views of the trials.

    Raises:
        MuvlaError: a trial does not fit or the launcher cannot start, before anything is collected or trained.
    """
    make_launcher(options.launcher, options.processes, options.launch).check(options.device)
    require_locks(ledger.root)
    deadline = None if options.time_limit is None else time.monotonic() + options.time_limit
    rows: list[TrialRow] = []
    while any(batch := tuning.recipes(rows).values()):
        trials = _open_batch(tuning, ledger, dict(zip(tuning.variants, batch, strict=True)), rows, say)
        unfinished = _run_batch(tuning, trials, options, deadline, say)
        order = list(tuning.variants)
        rows = sorted(
            rows + [trial.row() for trial in trials if trial.outcome],
            key=lambda row: (order.index(row.variant), row.number),
        )
        write_rows(folder / ROWS, rows)
        on_stage(rows)
        if unfinished:
            return TuningResult(rows, unfinished)
    return TuningResult(rows, [])


def write_rows(file: Path, rows: Sequence[TrialRow]) -> None:
    """Write the rows, a line of JSON per trial."""
    write_atomically(file, "".join(json.dumps(row.plain()) + "\n" for row in rows).encode())


def _open_batch(
    tuning: Tuning,
    ledger: Ledger,
    batch: dict[str, list[Recipe]],
    rows: Sequence[TrialRow],
    say: Callable[[str], None],
) -> list[Trial]:
    """The trials of a batch with their cells, after all checks."""
    named: dict[str, tuple[str, Recipe]] = {}
    numbers: dict[str, int] = {}
    for variant, recipes in batch.items():
        first = sum(row.variant == variant for row in rows)
        for number, recipe in enumerate(recipes, start=first):
            named[f"{variant} #{number}"] = (variant, recipe)
            numbers[f"{variant} #{number}"] = number
    study = tuning.study_of(named)
    tuning.check(study)
    say(f"{len(named)} trials of {len(tuning.seeds)} training seeds: {len(study.cells())} cells")
    entries: dict[str, list[Entry]] = {}
    for entry in ledger.entries(study, ledger.stores(study)):
        entries.setdefault(entry.item.variant, []).append(entry)
    return [Trial(numbers[name], variant, recipe, entries[name], {}) for name, (variant, recipe) in named.items()]


def _run_batch(
    tuning: Tuning, trials: list[Trial], options: SweepOptions, deadline: float | None, say: Callable[[str], None]
) -> list[str]:
    """Brings every trial of a batch to its outcome; returns the labels of the cells that are left open."""
    if options.retry_failed:  # before the first rung: a marked cell beyond the rung would fail its trial there
        clear_failures([entry for trial in trials for entry in trial.entries])
    for rung in tuning.rungs:
        if unfinished := _run_stage(trials, options, rung, deadline, say):
            return unfinished
        for variant in tuning.variants:
            _prune([t for t in trials if t.variant == variant and t.outcome is None], rung, tuning.keep, say)
    if unfinished := _run_stage(trials, options, None, deadline, say):
        return unfinished
    for trial in trials:
        trial.outcome = trial.outcome or COMPLETE
    return []


def _run_stage(
    trials: list[Trial],
    options: SweepOptions,
    rung: float | None,
    deadline: float | None,
    say: Callable[[str], None],
) -> list[str]:
    """Brings the cells of the trials without an outcome to a rung, or to their end."""
    left = None if deadline is None else max(1e-3, deadline - time.monotonic())
    stage = replace(options, training=replace(options.training, until=rung), time_limit=left)
    alive = [trial for trial in trials if trial.outcome is None]
    cells = {e.run.train: e for t in alive for e in t.entries if not _is_there(e, rung)}  # equal trials share a cell
    if cells:
        view = TrackingView(None, alive[0].entries[0].run.root, alive[0].entries[0].study)
        run_rounds(list(cells.values()), stage, Finishing(view, say, lambda _: None))
    for trial in alive:
        if any(_problem(entry) for entry in trial.entries):
            trial.outcome = FAILED
    open_cells = (e for t in trials if t.outcome is None for e in t.entries if not _is_there(e, rung))
    return [entry.item.label for entry in open_cells]


def _is_there(entry: Entry, rung: float | None) -> bool:
    """True if a cell has reached the rung; without a rung, its end."""
    if rung is None:
        return entry.state == "done"
    return updates_done(entry.run) >= _update_of(entry, rung)


def _update_of(entry: Entry, rung: float) -> int:
    return int(rung * entry.item.cell.effective_budget.updates)


def _prune(trials: list[Trial], rung: float, keep: float, say: Callable[[str], None]) -> None:
    """Decides which trials of one variant go on after a rung."""
    standings = []
    for trial in trials:
        update = _update_of(trial.entries[0], rung)
        losses = [training_loss(entry.run.folder / "train.jsonl", update) for entry in trial.entries]
        trial.losses[update] = sum(losses) / len(losses)
        standings.append(Standing(trial.number, trial.losses[update]))
    kept = survivors(standings, keep)
    for trial in trials:
        if trial.number not in kept:
            trial.outcome = PRUNED
            say(f"{trial.variant} #{trial.number}: pruned after {rung:.0%} of its training")


def _problem(entry: Entry) -> str:
    """The failure or the damage of a cell; empty without."""
    contents = entry.read()
    if contents.failure:
        return f"seed {entry.item.cell.seed}: {contents.failure['error']}"
    if contents.damage:
        return "; ".join(map(str, contents.damage))
    rates = [summarise(rows).success_rate for rows in contents.complete_rows().values()]
    return f"seed {entry.item.cell.seed}: every episode ended in an error" if None in rates else ""


def _success(entry: Entry) -> float:
    """Success rate of a finished cell under the tuning's protocol."""
    (rows,) = entry.complete_rows().values()
    return summarise(rows).success_rate
