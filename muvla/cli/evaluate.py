"""`muvla evaluate`: evaluate a policy under protocols."""

from __future__ import annotations

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.POLICY, "muvla evaluate recall_quick/K=8/0 --protocol recall-position3-rh@1")(evaluate)


def evaluate(
    run: o.RunName,
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
    """Evaluate a trained cell or a release.

    Every episode becomes a row in the run's folder. Episodes that have a row are not run again.
    """
    from muvla.cli.conditions import Computing, evaluate_and_show
    from muvla.cli.policies import ReleaseOptions, open_run

    opened = open_run(run, runs, data, ReleaseOptions(statistics, size, precision, without_memory))
    evaluate_and_show(opened, protocol, ["none"], Computing(device, threads, compile, retry_errors, workers))
