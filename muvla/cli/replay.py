"""`muvla replay`: run a recorded episode again and film it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.POLICY, "muvla replay recall_quick/K=8/0 --protocol recall-position3-rh@1 --episode 3")(replay)


def replay(
    run: o.RunName,
    protocol: o.Protocol,
    episode: Annotated[int, typer.Option(metavar="N", help="Number of the episode in the protocol, from 0.")],
    intervention: Annotated[
        str, typer.Option(metavar="NAME", help="Intervention under which the episode was recorded.")
    ] = "none",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The video.", show_default="videos/ in the run's folder"),
    ] = None,
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
    """Run a recorded episode again, and film it.

    The episode is compared with its row. The video shows the cameras, the action and the change of the memory. An
    episode that ends in another way than its row says is an error.
    """
    from muvla.cli.computing import prepare
    from muvla.cli.output import show
    from muvla.cli.policies import ReleaseOptions, ServerOptions, open_evaluator, open_run
    from muvla.evaluation.catalog import get_protocol
    from muvla.interventions import canonical_name
    from muvla.models.compilation import compile_step
    from muvla.runs.replay import recorded_row, replay_episode

    server = ServerOptions(server_name, access_key, timeout, tuple(camera or ()))
    opened = open_run(run, runs, data, ReleaseOptions(statistics, size, precision, without_memory), server)
    recorded, name = get_protocol(protocol), canonical_name(intervention)
    recorded_row(opened, recorded, name, episode)  # raises before the policy is loaded
    evaluator = open_evaluator(opened, prepare(device, threads, compile))
    if compile:
        compile_step(evaluator.policy)
    file, steps = replay_episode(evaluator, recorded, name, episode, out)
    show({"video": str(file), "steps": steps}, f"{file}: {steps} steps; the episode ended as its row says")
