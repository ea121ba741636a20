"""`muvla intervene`: evaluate a policy under interventions on its memory."""

from __future__ import annotations

from typing import Annotated

import typer

from muvla.cli import options as o

Interventions = Annotated[
    list[str],
    typer.Argument(
        metavar="INTERVENTION...",
        help="Names such as zero, noise_unit@cue_end.. or transplant; see `muvla ls interventions`.",
    ),
]


def add(app: typer.Typer) -> None:
    example = "muvla intervene recall_quick/K=8/0 zero transplant --protocol recall-position3-rh@1"
    o.verb(app, o.POLICY, example)(intervene)


def intervene(
    run: o.RunName,
    interventions: Interventions,
    protocol: o.Protocols,
    retry_errors: o.RetryErrors = False,
    statistics: o.Statistics = None,
    size: o.Size = None,
    precision: o.Precision = "float32",
    without_memory: o.WithoutMemory = False,
    device: o.Device = "auto",
    threads: o.Threads = 1,
    compile: o.Compile = False,
    workers: o.Workers = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Evaluate while interventions act on the memory.

    An intervention removes, replaces or exchanges the memory at declared steps. The result says what the policy needs
    the memory for.
    """
    from muvla.cli.conditions import Computing, evaluate_and_show
    from muvla.cli.policies import ReleaseOptions, open_run

    opened = open_run(run, runs, data, ReleaseOptions(statistics, size, precision, without_memory))
    evaluate_and_show(opened, protocol, interventions, Computing(device, threads, compile, retry_errors, workers))
