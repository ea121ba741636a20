"""`muvla serve`: serve a policy to robots and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from muvla.cli import options as o

if TYPE_CHECKING:
    from muvla.serving.server import Server

ADDRESS, ACTIONS, SESSIONS = "Address", "Actions", "Sessions"
WIRES, FULL, GRIPPERS = ("vla-eval", "openpi"), ("queue", "refuse"), ("raw", "binary", "closes", "opens")

Host = Annotated[
    str,
    typer.Option(metavar="ADDRESS", help="Address to listen on.", rich_help_panel=ADDRESS),
]
Port = Annotated[
    int,
    typer.Option(metavar="N", help="Port; 0 takes a free one.", min=0, max=65535, rich_help_panel=ADDRESS),
]
Root = Annotated[
    str,
    typer.Option(
        metavar="WIRE",
        help=f"Wire of the websocket at `/`: {' or '.join(WIRES)}.",
        rich_help_panel=ADDRESS,
        **o.choice("--root", WIRES),
    ),
]
AccessKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="MUVLA_ACCESS_KEY",
        help="Key that clients must show; required for an address beyond this machine.",
        rich_help_panel=ADDRESS,
    ),
]
MostMegabytes = Annotated[
    int,
    typer.Option(metavar="N", help="Largest message in MiB.", min=1, rich_help_panel=ADDRESS),
]
RegimeName = Annotated[
    str,
    typer.Option(metavar="NAME", help="receding, open_loop, ensemble or chunk.", rich_help_panel=ACTIONS),
]
Executed = Annotated[
    int | None,
    typer.Option("--h", metavar="N", help="Actions per chunk: needed by open_loop and chunk.", rich_help_panel=ACTIONS),
]
Tick = Annotated[
    str,
    typer.Option(metavar="WHEN", help="Memory of open_loop ticks at every env_step or call.", rich_help_panel=ACTIONS),
]
Horizon = Annotated[
    int,
    typer.Option(metavar="N", help="Chunks that an ensemble combines.", rich_help_panel=ACTIONS),
]
Alpha = Annotated[
    float,
    typer.Option(metavar="X", help="Weight of an ensemble for agreement.", rich_help_panel=ACTIONS),
]
GripperForm = Annotated[
    str | None,
    typer.Option(
        metavar="FORM",
        help=f"Last number of an action: {', '.join(GRIPPERS)}.",
        show_default="the checkpoint's",
        rich_help_panel=ACTIONS,
        **o.choice("--gripper", GRIPPERS),
    ),
]
Cameras = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Cameras by name in the training's order; repeatable.",
        show_default="images in the order in which they are sent",
        rich_help_panel=ACTIONS,
    ),
]
SlotCount = Annotated[
    int,
    typer.Option(metavar="N", help="Episodes side by side.", min=1, rich_help_panel=SESSIONS),
]
BatchRows = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Frames in one forward pass.",
        min=1,
        show_default="--slots",
        rich_help_panel=SESSIONS,
    ),
]
Window = Annotated[
    float,
    typer.Option(metavar="MS", help="Milliseconds that a frame waits for others.", min=0, rich_help_panel=SESSIONS),
]
Silence = Annotated[
    float,
    typer.Option(
        metavar="S", help="Seconds after which a silent session is closed.", min=0.1, rich_help_panel=SESSIONS
    ),
]
WhenFull = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="Episodes beyond the slots: queue or refuse.",
        rich_help_panel=SESSIONS,
        **o.choice("--when-full", FULL),
    ),
]
Queue = Annotated[
    int,
    typer.Option(metavar="N", help="Most sessions that wait for a slot.", min=1, rich_help_panel=SESSIONS),
]
Rate = Annotated[
    float,
    typer.Option(metavar="N", help="Most requests a second and session.", min=1, rich_help_panel=SESSIONS),
]
OneEpisode = Annotated[
    bool,
    typer.Option(
        "--one-episode-per-connection",
        metavar="",
        help="openpi: a connection is one episode.",
        rich_help_panel=SESSIONS,
    ),
]


def add(app: typer.Typer) -> None:
    o.verb(app, o.POLICY, "muvla serve recall_quick/K=8/0 --port 8000")(serve)


def serve(
    run: o.RunName,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    root: Root = "vla-eval",
    access_key: AccessKey = None,
    most_megabytes: MostMegabytes = 16,
    regime: RegimeName = "receding",
    h: Executed = None,
    tick: Tick = "env_step",
    horizon: Horizon = 1,
    alpha: Alpha = 0.1,
    gripper: GripperForm = None,
    camera: Cameras = None,
    slots: SlotCount = 8,
    batch: BatchRows = None,
    window: Window = 2.0,
    silence: Silence = 60.0,
    when_full: WhenFull = "queue",
    queue: Queue = 64,
    rate: Rate = 1000.0,
    one_episode_per_connection: OneEpisode = False,
    statistics: o.Statistics = None,
    size: o.Size = None,
    precision: o.Precision = "float32",
    without_memory: o.WithoutMemory = False,
    device: o.Device = "auto",
    threads: o.Threads = 1,
    compile: o.Compile = False,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Serve a trained cell or a release to robots and benchmarks.

    One process serves many sessions, each with a memory of its own. Clients speak vla-eval's websocket, openpi's
    websocket, or MemoryVLA's `POST /process_frame`. Nothing is written to disk.
    """
    from muvla.cli.computing import prepare
    from muvla.cli.policies import ReleaseOptions, open_run
    from muvla.serving.regime import Regime
    from muvla.serving.serve import build_gate, open_slots, trained_conventions
    from muvla.serving.server import Server
    from muvla.serving.sessions import Limits

    chosen = Regime(regime, h, tick, horizon, alpha)
    opened = open_run(run, runs, data, ReleaseOptions(statistics, size, precision, without_memory))
    served = open_slots(opened, prepare(device, threads, compile), slots, tuple(camera or ()), batch, compile)
    access = {"access_key": access_key, "most_bytes": most_megabytes * 2**20, "one_episode": one_episode_per_connection}
    limits = Limits(window / 1000, silence, when_full, queue, rate)
    gate = build_gate(served, chosen, limits, trained_conventions(opened), gripper, **access)
    _run(Server(gate, host, port, root), opened.train)


def _run(server: Server, train: str) -> None:
    import asyncio

    from muvla.cli.computing import stop_on_signal
    from muvla.cli.output import show

    should_stop = stop_on_signal(silent=True)

    async def run_server() -> None:
        await server.start()
        place = f"{server.host}:{server.port}"
        addresses = {"websocket": f"ws://{place}/", "http": f"http://{place}/process_frame"}
        text = f"{train}: ws://{place}/ ({server.root}), {addresses['http']}; Ctrl-C stops"
        show({"train": train} | addresses, text)
        await server.run(should_stop)

    asyncio.run(run_server())
