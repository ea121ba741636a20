"""`muvla verify`: check run folders, and say what does not hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muvla.cli import options as o

if TYPE_CHECKING:
    from muvla.runs.verify import Verification


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla verify recall_quick")(verify)


def verify(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|STUDY|FOLDER|FILE",
            help="STUDY/VARIANT/SEED, a train id or its beginning; a study; a folder of runs; or a rows.jsonl.gz.",
            show_default="all runs",
        ),
    ] = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> int:
    """Check that the files of runs, and the committed rows of a study, hold.

    Every row belongs to its run, protocol, intervention and episode, is there once, and is as it was written. The
    checkpoints, measurements, logs and provenance are checked too. Nothing is changed. Exit status 1 means that a file
    does not hold.
    """
    from muvla.cli.output import EXIT_MISSING, detail, result_line, show_json
    from muvla.errors import MuvlaError

    verifications = []
    for verification in _verify(what, runs, data):
        verifications.append(verification)
        result_line(_line(verification))
        for fault in verification.faults:
            result_line(f"  {fault}")
        for note in verification.notes:
            detail(f"  {note}")
    if not verifications:
        raise MuvlaError(
            "RUN", got=what, expected=f"at least one run under {runs}", remedy="run `muvla sweep STUDY` first"
        )
    damaged = [verification.train for verification in verifications if verification.faults]
    result_line(f"\nDo not hold: {', '.join(damaged)}." if damaged else "\nEverything holds.")
    show_json({"ok": not damaged, "runs": [verification.plain() for verification in verifications]})
    return EXIT_MISSING if damaged else 0


def _verify(what: str | None, runs: Path, data: Path) -> Iterator[Verification]:
    """Check the runs that `what` names, one after the other."""
    from muvla.cli.policies import find_cell, is_cell
    from muvla.cli.studies import find_study, open_ledger, open_study, study_names
    from muvla.runs.find import find_run
    from muvla.runs.run import Run
    from muvla.runs.verify import run_folders, verify_run
    from sweeps.committed import results_folder
    from sweeps.rows_format import NAME

    if what is None:
        yield from (verify_run(Run(runs, data, name)) for name in run_folders(runs))
    elif is_cell(what):
        yield verify_run(find_cell(what, runs, data))
    elif what.endswith(NAME):
        yield _verify_rows(Path(what))
    elif os.path.isfile(what) or os.path.isfile(Path(what) / "study.py") or what in study_names():
        study, ledger = open_study(what), open_ledger(runs, data)
        rows = results_folder(find_study(what)) / NAME
        if rows.exists():
            yield _verify_rows(rows)
            if not ledger.has_data(study):  # a clone, in which nothing has run
                return
        for entry in ledger.entries(study, ledger.opened(study)):
            if entry.run.folder.exists():
                yield verify_run(entry.run, study.every_protocol)
    elif os.path.isdir(what):
        folder = Path(what)
        names = run_folders(folder)
        if not names and folder.resolve().name in run_folders(folder.resolve().parent):
            folder, names = folder.resolve().parent, [folder.resolve().name]
        yield from (verify_run(Run(folder, data, name)) for name in names)
    elif what in run_folders(runs):  # a release or a baseline
        yield verify_run(Run(runs, data, what))
    else:
        yield verify_run(find_run(runs, data, what))


def _verify_rows(file: Path) -> Verification:
    """Check a file of committed rows."""
    from muvla.runs.verify import Verification
    from sweeps.rows_reader import read_rows_file

    verification = Verification(str(file))
    with verification.collecting():
        content = read_rows_file(file)
        for cell in content.cells:
            content.results_of(cell)
        verification.unsealed = len(content.unsealed)
        verification.sealed = len(content.rows) - len(content.unsealed)
        if unknown := sorted({cell.results.train for cell in content.cells if cell.results.data is None}):
            verification.notes.append(f"train ids of unknown data, which nothing confirms: {', '.join(unknown)}")
        if content.printed:
            verification.notes.append(f"provenance taken from a printed report: {', '.join(sorted(content.printed))}")
    return verification


def _line(verification: Verification) -> str:
    counts = [f"{verification.sealed} sealed"]
    counts += [f"{verification.unsealed} not sealed (older than seals)"] if verification.unsealed else []
    counts += [f"{verification.unfinished} unfinished"] if verification.unfinished else []
    state = f"{len(verification.faults)} faults" if verification.faults else "holds"
    return f"{verification.train}  {state}; results: {', '.join(counts)}"
