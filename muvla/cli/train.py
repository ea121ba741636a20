"""`muvla train`: train every cell of a study."""

from __future__ import annotations

from typing import Annotated

import typer

from muvla.cli import options as o
from muvla.errors import MuvlaError


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, 'muvla train recall_quick --variant "K=8" --seeds 0')(train)


def train(
    study: o.StudyName,
    set: o.Set = None,
    seeds: o.Seeds = None,
    variants: o.Variants = None,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            metavar="",
            help="Under torchrun: split a policy that does not fit on one GPU.",
            rich_help_panel=o.TRAINING,
        ),
    ] = False,
    gradient_checkpointing: o.GradientCheckpointing = False,
    cache_vision: o.CacheVision = False,
    one_pass: o.OnePass = False,
    no_diagnostics: o.NoDiagnostics = False,
    keep_checkpoints: o.KeepCheckpoints = 1,
    device: o.Device = "auto",
    threads: o.Threads = 1,
    compile: o.Compile = False,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Train every cell of a study, without evaluating.

    Cells are trained one after the other. Missing demonstrations are collected first. A finished training is skipped, a
    stopped one continues. Under torchrun, all processes train one cell together.
    """
    from muvla.cli.computing import prepare, stop_on_signal, training_options
    from muvla.cli.output import show_json
    from muvla.cli.status import entry_status
    from muvla.cli.studies import open_ledger, open_study
    from muvla.training.distributed.torchrun import join_ranks
    from sweeps.train import train_study

    if shard and compile:
        raise MuvlaError(
            "--shard", got="with --compile", expected="one of the two", remedy="leave --shard or --compile out"
        )
    with join_ranks(shard) as ranks:
        chosen = prepare(device, threads, compile, one_process=False)
        how = training_options(
            gradient_checkpointing, compile, cache_vision, one_pass, no_diagnostics, keep_checkpoints
        )
        cells = open_study(study, set, seeds, variants)
        stop = stop_on_signal(silent=ranks.size > 1)  # torchrun stops the others if one rank dies
        entries = train_study(cells, open_ledger(runs, data), chosen, how, ranks, stop)
        if ranks.is_main:
            show_json({"study": cells.name, "cells": [entry_status(entry) for entry in entries]})
