"""`muvla import-results`: show the results of other harnesses beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Results of vla-eval, or eval_info.json of LeRobot.")
]
COLUMNS = ("source", "task", "n", "successes", "errors", "success", "low", "high")


def add(app: typer.Typer) -> None:
    o.verb(app, o.POLICY, "muvla import-results results/libero.json", name="import-results")(import_results)


def import_results(files: Files, json: o.Json = False) -> None:
    """Show the results of vla-eval and LeRobot, with n and Wilson intervals.

    Errors count as failures in these files. Our rows leave errors out of every rate.
    """
    from muvla.cli.output import show_table
    from muvla.serving.foreign_results import read_results

    lines = [line.plain() for file in files for line in read_results(file)]
    show_table("results", COLUMNS, lines, "No result.")
