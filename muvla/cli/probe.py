"""`muvla probe`: take probes of a policy without a study."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from muvla.cli import options as o
from muvla.errors import MuvlaError

Probes = Annotated[
    list[str], typer.Argument(metavar="PROBE...", help="Names such as decoders or phase-length; see `muvla ls probes`.")
]
Episodes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Episodes of a measurement, the protocol's first N.",
        show_default="all",
        callback=o.at_least_one("--episodes"),
    ),
]


def add(app: typer.Typer) -> None:
    o.verb(app, o.POLICY, "muvla probe recall_quick/K=8/0 dynamics --protocol recall-position3-rh@1")(probe)


def probe(
    run: o.RunName,
    probes: Probes,
    protocol: o.Protocol,
    episodes: Episodes = None,
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
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Take probes of a trained cell or a release.

    A measurement reads the model's state during episodes and writes a table (CSV). A grid evaluates the policy under
    changed tasks, and prints a line for each point.
    """
    from muvla.cli.computing import prepare, stop_on_signal
    from muvla.cli.output import show_json
    from muvla.cli.policies import ReleaseOptions, ServerOptions, open_evaluator, open_run
    from muvla.evaluation.catalog import get_protocol
    from muvla.models.compilation import compile_step
    from muvla.probes.base import Grid, ScheduledMeasurement
    from muvla.probes.registry import get_probe

    chosen, base = prepare(device, threads, compile), get_protocol(protocol)
    server = ServerOptions(server_name, access_key, timeout, tuple(camera or ()))
    opened = open_run(run, runs, data, ReleaseOptions(statistics, size, precision, without_memory), server)
    wanted = [get_probe(name, base) for name in probes]
    if episodes is not None and any(isinstance(item, Grid) for item in wanted):
        raise MuvlaError(
            "--episodes",
            got="a number for a grid",
            expected="a measurement",
            remedy="leave --episodes out: a grid runs the episodes of its protocols",
        )
    evaluator = open_evaluator(opened, chosen, stop_on_signal())
    with opened.working(marks_failure=False):
        if compile:
            compile_step(evaluator.policy)
        taken = [
            _take_grid(evaluator, item)
            if isinstance(item, Grid)
            else _take_measurement(evaluator, ScheduledMeasurement(item, base, episodes))
            for item in wanted
        ]
    show_json({"train": opened.train, "probes": taken})


def _take_grid(evaluator, grid) -> dict[str, Any]:
    """Evaluate a grid. Return its points for JSON."""
    from muvla.cli.output import result_line, summary_data
    from muvla.runs.conditions import evaluate_grid

    points = [
        dict(result.point.coordinates)
        | {"protocol": result.point.protocol.id, "intervention": result.point.intervention, "error": result.error}
        | summary_data(result.summary)
        for result in evaluate_grid(evaluator, grid, result_line)
    ]
    return {"probe": grid.id, "points": points}


def _take_measurement(evaluator, scheduled) -> dict[str, Any]:
    """Take a measurement. Return its file for JSON."""
    from muvla.cli.output import result_line
    from muvla.runs.probe import take_measurement

    file = take_measurement(evaluator, scheduled)
    result_line(f"{scheduled.measurement.id}: {file}")
    return {"probe": scheduled.measurement.id, "file": str(file)}
