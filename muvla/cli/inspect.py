"""`muvla inspect`: list the content of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="STUDY/VARIANT/SEED, a train id or its beginning, a run's folder, or a released checkpoint: its folder or "
        "owner/name@revision of the Hugging Face hub.",
    ),
]


def add(app: typer.Typer) -> None:
    o.verb(app, o.CHECKPOINTS, "muvla inspect runs/3f09c1d2a7b4")(inspect)


def inspect(
    checkpoint: Checkpoint,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Architecture, if config.json does not state it: tiny, small or openvla-7b.",
            show_default="as in config.json",
        ),
    ] = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """List the content of a checkpoint.

    The output names parts, hashes and statistics, each file and field of a release as used, irrelevant or refused, and
    everything that does not load. Exit status 2 means that the checkpoint does not load.
    """
    from muvla.checkpoints.inspect import inspect as facts_of
    from muvla.checkpoints.inspect import list_fields
    from muvla.cli.output import result_line, show_json
    from muvla.config.sizes import get_size

    folder, architecture = _folder(checkpoint, runs, data), get_size(size) if size else None
    facts: list[dict[str, str]] = []
    try:
        for line in facts_of(folder, architecture):
            result_line(line)
            name, _, value = line.partition(": ")
            facts.append({"name": name.strip(), "value": value})
    finally:  # a checkpoint that does not load is listed all the same
        if facts:
            show_json({"checkpoint": str(folder), "facts": facts, "fields": list_fields(folder, architecture)})


def _folder(name: str, runs: Path, data: Path) -> Path:
    from muvla.checkpoints.hub import resolve_checkpoint
    from muvla.cli.policies import find_trained, is_cell
    from muvla.runs.find import train_ids

    if not os.path.exists(name) and (is_cell(name) or any(train.startswith(name) for train in train_ids(runs))):
        return find_trained(name, runs, data).folder
    return resolve_checkpoint(name)
