"""`muvla convert`: write a training file of CogACT, MemoryVLA or CronusVLA as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o
from muvla.errors import MuvlaError


def add(app: typer.Typer) -> None:
    o.verb(app, o.CHECKPOINTS, "muvla convert log/libero/memvla_libero_spatial converted")(convert)


def convert(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A run folder of the training, a .pt file in it, or a hub name.")
    ],
    directory: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    json: o.Json = False,
) -> None:
    """Write a training file of MemoryVLA, CogACT or CronusVLA as safetensors.

    The new folder takes the place of the run folder. It opens without reading the whole file.
    """
    from muvla.checkpoints.hub import resolve_checkpoint
    from muvla.checkpoints.opening import open_checkpoint
    from muvla.checkpoints.prismatic import PrismaticCheckpoint
    from muvla.checkpoints.prismatic_export import convert as write_converted
    from muvla.cli.output import show

    opened = open_checkpoint(resolve_checkpoint(checkpoint))
    if not isinstance(opened, PrismaticCheckpoint) or opened.file is None:
        raise MuvlaError(
            "CHECKPOINT",
            got=f"{checkpoint}, whose weights are safetensors",
            expected="a run folder with a .pt file of CogACT, MemoryVLA or CronusVLA",
            remedy="use the checkpoint as it is",
        )
    write_converted(opened, directory)
    show({"checkpoint": str(directory)}, f"{directory}: written from {opened.file}")
