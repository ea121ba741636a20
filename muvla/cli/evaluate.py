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
    server_name: o.ServerName = None,
    access_key: o.AccessKey = None,
    timeout: o.Timeout = 30.0,
    camera: o.ServerCameras = None,
    device: o.Device = "auto",
    threads: o.Threads = 1,
    compile: o.Compile = False,
    workers: o.Workers = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Evaluate a trained cell, a release, or a policy server (ws://HOST:PORT, http://HOST:PORT).

    Every episode becomes a row in the run's folder. Episodes that have a row are not run again.
    """
    from muvla.cli.conditions import Computing, evaluate_and_show
    from muvla.cli.policies import ReleaseOptions, ServerOptions, open_run

    server = ServerOptions(server_name, access_key, timeout, tuple(camera or ()))
    opened = open_run(run, runs, data, ReleaseOptions(statistics, size, precision, without_memory), server)
    evaluate_and_show(opened, protocol, ["none"], Computing(device, threads, compile, retry_errors, workers))
