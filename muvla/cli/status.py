"""`muvla status`: what is trained, evaluated, running and failed."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muvla.cli import options as o
from muvla.errors import MuvlaError

if TYPE_CHECKING:
    from sweeps.cells import StudyCell
    from sweeps.ledger import Entry

EVERY = 5.0  # seconds between two looks of --watch
CLEAR = "\033[H\033[J"  # an empty terminal


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla status recall_quick")(status)


def status(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            help="Name of a folder in experiments/, or a study's folder or file.",
            show_default="all runs",
        ),
    ] = None,
    set: o.Set = None,
    seeds: o.Seeds = None,
    variants: o.Variants = None,
    watch: Annotated[
        bool, typer.Option("--watch", metavar="", help="Show the study again and again until all cells have ended.")
    ] = False,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Show what is trained, evaluated, running, failed.

    The table has a row for each cell, with who works on it. Below it stand the time left and the disk. Without a study,
    all runs are shown.
    """
    if watch and (json or study is None):
        raise MuvlaError(
            "--watch",
            got="--watch with --json" if json else "--watch without a study",
            expected="a study, and no --json, which prints one object",
            remedy="leave --json out" if json else "name a study, for example muvla status recall_quick --watch",
        )
    if study is None:
        _all_runs(runs)
        return
    while _study(study, set, seeds, variants, runs, data, watch) and watch:
        time.sleep(EVERY)


def _all_runs(runs: Path) -> None:
    from muvla.cli.output import show_table
    from muvla.runs.status import run_statuses

    rows = [item.plain() for item in run_statuses(runs)]
    header = ("train", "state", "updates", "results", "task", "memory", "seed")
    show_table("runs", header, rows, f"No run under {runs}. Start one with `muvla sweep STUDY`.")


def _study(name: str, set, seeds, variants, runs: Path, data: Path, clear: bool) -> bool:
    """Show a study once; return True while a cell is left."""
    from muvla.cli.output import show
    from muvla.cli.studies import open_ledger, open_study
    from muvla.utils.table import text_table
    from sweeps.estimate import ENDED, estimate, finished_costs

    study, ledger = open_study(name, set, seeds, variants), open_ledger(runs, data)
    start = CLEAR if clear and sys.stdout.isatty() else ""
    if not ledger.has_data(study):
        cells = [planned_status(item) for item in study.cells()]
        show(
            {"study": study.name, "cells": cells}, f"{start}{study.name}: {len(cells)} cells are planned; no data yet."
        )
        return True
    entries = ledger.entries(study, ledger.opened(study))
    cells = [entry_status(entry) for entry in entries]
    states = [cell["state"] for cell in cells]
    left = estimate(entries, states, finished_costs(entries, states))
    header = ("variant", "seed", "train", "state", "updates", "results", "probes")
    rows = [[cell[key] for key in header] for cell in cells]
    lines = [f"{start}{study.name}: {_counts(cells)}", "", text_table(header, rows)]
    lines += [f"{cell['variant']}, seed {cell['seed']}: {cell['error']}" for cell in cells if cell["error"]]
    lines += _working_lines(cells)
    lines.append(left.line(max(1, states.count("running"))))
    show({"study": study.name, "cells": cells, "left": asdict(left)}, "\n".join(lines))
    return any(state not in ENDED for state in states)


def _working_lines(cells: list[dict[str, Any]]) -> list[str]:
    """A line for each cell that somebody works on: who, and the last line of its training log."""
    lines = []
    for cell in cells:
        if cell["state"] == "running":
            speed = f", loss {cell['loss']:.3f}, {cell['frames_per_second']:.0f} frames/s" if cell["loss"] else ""
            lines.append(
                f"{cell['variant']}, seed {cell['seed']}: {cell['process']} works on it, update {cell['logged']}{speed}"
            )
    return lines


def planned_status(item: StudyCell) -> dict[str, Any]:
    """A cell whose data do not exist yet, and so without a train id."""
    return {"variant": item.variant, "seed": item.cell.seed, "train": None, "state": "planned"}


def _counts(cells: list[dict[str, Any]]) -> str:
    states = [cell["state"] for cell in cells]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def entry_status(entry: Entry) -> dict[str, Any]:
    """A cell's state: `done`, `running`, `partial`, `planned`, `failed`, `not a measurement` or `damaged`."""
    contents, conditions = entry.read(), entry.conditions
    measurements = entry.study.measurements_of(entry.item.cell)
    failure = contents.failure or {}
    errors = [failure["error"]] if failure else [str(error) for error in contents.damage]
    taken = sum(meta is not None for _, meta in contents.measurements)
    done, total = contents.updates, entry.item.cell.effective_budget.updates
    state = entry.state_of(contents)
    line = _last_line(entry) if state == "running" else {}
    return {
        "variant": entry.item.variant,
        "seed": entry.item.cell.seed,
        "train": entry.run.train,
        "state": state,
        "updates": f"{done}/{total}",
        "results": f"{len(contents.results) - len(contents.missing())}/{len(conditions)}",
        "probes": f"{taken}/{len(measurements)}",
        "process": str(owner) if (owner := entry.run.owner) else None,
        "logged": line.get("update", 0),
        "loss": line.get("loss"),
        "frames_per_second": line.get("frames_per_second"),
        "error": errors[0] if errors else None,
    }


def _last_line(entry: Entry) -> dict[str, Any]:
    """The last line of the training log; empty before the first line."""
    from muvla.utils.io import read_lines

    lines = read_lines(entry.run.folder / "train.jsonl")
    return lines[-1] if lines else {}
