"""`muvla export`: write a trained cell in the released layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.CHECKPOINTS, "muvla export recall_quick/K=8/0 exported --statistics recall")(export)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="STUDY/VARIANT/SEED, or a train id or its beginning.")],
    directory: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    statistics: Annotated[
        str, typer.Option(metavar="KEY", help="Name that the dataset's statistics get in the release.")
    ],
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Write a trained cell in the released layout.

    The published code loads the release. A cell that the published code cannot compute is refused.
    """
    from muvla.cli.output import show
    from muvla.cli.policies import find_trained
    from muvla.runs.export import export as export_release

    export_release(find_trained(run, runs, data), directory, statistics)
    show({"release": str(directory)}, f"{directory}: written, and read again")
