"""`muvla sweep`: run every cell of a study."""

from __future__ import annotations

import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muvla.cli import options as o

LAUNCHER = "Launcher"  # help panel

if TYPE_CHECKING:
    from sweeps.ledger import Entry, Ledger
    from sweeps.predictions import Prediction
    from sweeps.study import Study
    from sweeps.sweep import SweepOptions, SweepResult


Plan = Annotated[bool, typer.Option("--plan", metavar="", help="Print cells, budgets and train ids; run nothing.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", metavar="", help="Run failed cells, and episodes with errors, again.")
]
Calibrate = Annotated[
    bool,
    typer.Option("--calibrate", metavar="", help="With --plan: train a few updates per variant to estimate the cost."),
]
NoTracking = Annotated[bool, typer.Option("--no-tracking", metavar="", help="Show the cells in no tracker.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES", help="Stop cleanly after this time.", show_default="none", rich_help_panel=o.COMPUTING
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Cells at once.",
        show_default="one per core; one on a GPU",
        rich_help_panel=o.COMPUTING,
        callback=o.at_least_one("--processes"),
    ),
]


Tracker = Annotated[str, typer.Option(metavar="NAME", help="Tracker that shows the cells: mlflow, or jsonl.")]
Launcher = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Launcher that runs the cells: local, slurm, ray, or a package's.",
        rich_help_panel=LAUNCHER,
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of the launcher, such as partition=gpu; repeatable.",
        rich_help_panel=LAUNCHER,
    ),
]
OptionsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="TOML file of the launcher's options.", rich_help_panel=LAUNCHER),
]
GpusPerCell = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="GPUs of every cell; from 2 on, torchrun trains the cell.",
        show_default="one",
        rich_help_panel=LAUNCHER,
        callback=o.at_least_one("--gpus-per-cell"),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Ray cluster to join.", show_default="a local one", rich_help_panel=LAUNCHER
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar="", help="Print the batch script; run nothing.", rich_help_panel=LAUNCHER),
]


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla sweep recall_quick --seeds 0,1 --time-limit 20")(sweep)


def sweep(
    study: o.StudyName,
    set: o.Set = None,
    seeds: o.Seeds = None,
    variants: o.Variants = None,
    plan: Plan = False,
    calibrate: Calibrate = False,
    retry_failed: RetryFailed = False,
    no_tracking: NoTracking = False,
    tracker: Tracker = "mlflow",
    time_limit: TimeLimit = None,
    launcher: Launcher = "local",
    option: Option = None,
    options_file: OptionsFile = None,
    gpus_per_cell: GpusPerCell = None,
    address: Address = None,
    dry_run: DryRun = False,
    processes: Processes = None,
    device: o.Device = "auto",
    threads: o.Threads = 1,
    compile: o.Compile = False,
    workers: o.Workers = None,
    gradient_checkpointing: o.GradientCheckpointing = False,
    cache_vision: o.CacheVision = False,
    one_pass: o.OnePass = False,
    no_diagnostics: o.NoDiagnostics = False,
    keep_checkpoints: o.KeepCheckpoints = 1,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> int:
    """Run every cell of a study. Finished cells are skipped, and exit status 3 means that cells failed."""
    from muvla.cli.computing import training_options
    from muvla.cli.studies import open_ledger, open_study
    from sweeps.launchers.options import read_texts
    from sweeps.sweep import SweepOptions

    launch = read_texts(option or [], options_file, gpus_per_cell=gpus_per_cell, address=address)
    how = (gradient_checkpointing, compile, cache_vision, one_pass, no_diagnostics, keep_checkpoints)
    options = SweepOptions(
        **place_cells(launcher, launch, processes, device, threads, compile),
        time_limit=None if time_limit is None else 60 * time_limit,
        track=not no_tracking,
        retry_failed=retry_failed,
        plan_only=plan,
        calibrate=calibrate,
        training=training_options(*how),
        workers=workers,
        dry_run=dry_run,
        tracker=tracker,
    )
    return _run(study, open_study(study, set, seeds, variants), open_ledger(runs, data), options, bool(set))


def _run(name: str, study: Study, ledger: Ledger, options: SweepOptions, rebased: bool) -> int:
    """Run the study, print what remains and return the exit status.

    Args:
        name: the study as the user named it.
        study: the study, narrowed.
        ledger: run folders and datasets.
        options: how to run the cells.
        rebased: whether the study has another base than its file.
    """
    from analysis.page.live import LivePage
    from sweeps.sweep import require_runnable, run_study

    require_runnable(study, options)
    runs_nothing = options.plan_only or options.dry_run
    registered = _register(name, study, ledger, runs_nothing or rebased)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is handled like Ctrl-C
    started = time.monotonic()
    command = shlex.join(["muvla", "sweep", name])
    page = LivePage([study], ledger, ledger.root / "report" / study.name, command, registered)
    result = run_study(study, ledger, options, on_finished=page, on_start=page.show)
    if not runs_nothing:
        page.show()
    return _show(study, ledger, result, options, time.monotonic() - started)


def place_cells(
    launcher: str, launch: dict[str, Any], processes: int | None, device: str, threads: int, compile: bool
) -> dict[str, Any]:
    """Prepares this process for the launcher of the cells.

    Args:
        launcher: name of the launcher.
        launch: its options.
        processes: cells at once; None for the launcher's default.
        device: auto, cpu or cuda.
        threads: CPU threads per process.
        compile: True if the step is going to be compiled.

    Returns:
        The fields of `SweepOptions` that say where the cells run.

    Raises:
        MuvlaError: an unknown launcher or option, or fewer GPUs than asked for.
    """
    from sweeps.launchers.registry import make_launcher

    chosen = _prepare(launcher, launch, device, threads, compile)
    return {
        "processes": make_launcher(launcher, processes, launch, chosen).processes,
        "device": chosen,
        "threads": threads,
        "launcher": launcher,
        "launch": launch,
    }


def _prepare(launcher: str, launch: dict[str, Any], device: str, threads: int, compile: bool) -> str:
    """Prepares this process, and returns the device of the cells.

    Args:
        launcher: name of the launcher.
        launch: its options.
        device: auto, cpu or cuda.
        threads: CPU threads per process.
        compile: True if the step is going to be compiled.
    """
    from muvla.cli.computing import prepare
    from sweeps.launchers.devices import require_gpus
    from sweeps.launchers.registry import get_launcher

    wants_gpus = "gpus_per_cell" in launch
    if get_launcher(launcher).runs_elsewhere and (device.startswith("cuda") or wants_gpus):
        prepare("cpu", threads, compile)  # this machine need not have what the cells' machines have
        return "cuda"
    if wants_gpus and device == "auto":  # `auto` must not turn the GPUs asked for into a CPU
        require_gpus("cuda", 1)
    return prepare(device, threads, compile)


def _register(name: str, study: Study, ledger: Ledger, read_only: bool) -> dict[Prediction, str]:
    """Register the predictions of the study's file, unless the command runs nothing or another base; say the status.

    Returns:
        Prediction → whether it was registered before its rows.
    """
    from muvla.cli.studies import find_study, open_study
    from sweeps.registration import has_rows, read_registrations, register, registration_line

    path = find_study(name)
    rows = has_rows(study, path, ledger)
    if not read_only:
        register(open_study(name), path, ledger.root, rows)
    statuses = read_registrations(study, path, ledger.root, rows)
    if line := registration_line(statuses):
        print(line)
    return statuses


def _show(study: Study, ledger: Ledger, result: SweepResult, options, seconds: float) -> int:
    """Print what remains and return the exit status."""
    from muvla.cli.output import EXIT_FAILED_CELLS, show_json

    show_json(
        lambda: {"study": study.name, "title": study.title, "cells": _cells(study, result.entries)} | _cost(result)
    )
    if options.plan_only or options.dry_run:
        return 0
    print(f"\n{seconds:.0f} s.")
    if result.not_run:
        why = "The time limit was reached; not" if options.time_limit else "Not"
        print(f"{why} finished: {'; '.join(entry.item.label for entry in result.not_run)}.")
        print("The same command continues where this one stopped.")
    stopped = result.not_run and options.time_limit is None
    return EXIT_FAILED_CELLS if result.failed or stopped else 0


def _cost(result: SweepResult) -> dict[str, Any]:
    """The cost of the cells of a plan that are left."""
    from dataclasses import asdict

    return {} if result.cost is None else {"left": asdict(result.cost)}


def _cells(study: Study, entries: list[Entry]) -> list[dict[str, Any]]:
    """Every cell with its state, its difference from the base, and its budget; without train ids before the data."""
    from muvla.cli.status import entry_status, planned_status
    from muvla.config.serialization import flatten

    base = flatten(study.base)
    if not entries:
        return [planned_status(item) | plan_row(base, item.cell) for item in study.cells()]
    return [entry_status(entry) | plan_row(base, entry.item.cell) for entry in entries]


def plan_row(base: dict[str, Any], cell) -> dict[str, Any]:
    """A cell's difference from the flattened base, and its budget."""
    from sweeps.plan import differences_from_base

    budget = cell.effective_budget
    return {
        "differs": differences_from_base(base, cell),
        "slots": budget.slots,
        "window": budget.window,
        "updates": budget.updates,
        "frames_per_update": budget.frames_per_update,
        "frames": budget.total_frames,
    }
