"""`muvla init`: write a first study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla init my_study && muvla sweep my_study")(init)


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and underscores; names the folder.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The study's folder.", show_default="NAME")
    ] = None,
    json: o.Json = False,
) -> None:
    """Write a first study.

    The study runs on a CPU in minutes: a study.py and a README. No checkout of the repository is needed.
    """
    from muvla.cli.output import show
    from sweeps.template import write_study

    file = write_study(folder or Path(name), name)
    text = f"{file.parent}: study.py and README.md\nNext: muvla sweep {file.parent} --plan"
    show({"study": str(file), "readme": str(file.with_name("README.md"))}, text)
