"""`muvla status`: what is trained, evaluated, running and failed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muvla.cli import options as o

if TYPE_CHECKING:
    from sweeps.cells import StudyCell
    from sweeps.ledger import Entry


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
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Show what is trained, evaluated, running, failed.

    The table has a row for each cell. Without a study, all runs are shown.
    """
    if study is None:
        _all_runs(runs)
    else:
        _study(study, set, seeds, variants, runs, data)


def _all_runs(runs: Path) -> None:
    from muvla.cli.output import show_table
    from muvla.runs.status import run_statuses

    rows = [item.plain() for item in run_statuses(runs)]
    header = ("train", "state", "updates", "results", "task", "memory", "seed")
    show_table("runs", header, rows, f"No run under {runs}. Start one with `muvla sweep STUDY`.")


def _study(name: str, set, seeds, variants, runs: Path, data: Path) -> None:
    from muvla.cli.output import show
    from muvla.cli.studies import open_ledger, open_study
    from muvla.utils.table import text_table

    study, ledger = open_study(name, set, seeds, variants), open_ledger(runs, data)
    if not ledger.has_data(study):
        cells = [planned_status(item) for item in study.cells()]
        show({"study": study.name, "cells": cells}, f"{study.name}: {len(cells)} cells are planned; no data yet.")
        return
    entries = ledger.entries(study, ledger.opened(study))
    cells = [entry_status(entry) for entry in entries]
    header = ("variant", "seed", "train", "state", "updates", "results", "probes")
    rows = [[cell[key] for key in header] for cell in cells]
    lines = [f"{study.name}: {_counts(cells)}", "", text_table(header, rows)]
    lines += [f"{cell['variant']}, seed {cell['seed']}: {cell['error']}" for cell in cells if cell["error"]]
    show({"study": study.name, "cells": cells}, "\n".join(lines))


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
    return {
        "variant": entry.item.variant,
        "seed": entry.item.cell.seed,
        "train": entry.run.train,
        "state": entry.state_of(contents),
        "updates": f"{done}/{total}",
        "results": f"{len(contents.results) - len(contents.missing())}/{len(conditions)}",
        "probes": f"{taken}/{len(measurements)}",
        "process": str(owner) if (owner := entry.run.owner) else None,
        "error": errors[0] if errors else None,
    }
