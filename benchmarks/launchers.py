"""Cells per hour of the launchers `local` and `ray`, and the cost of heartbeats.

python -m benchmarks.launchers        prints the tables and writes benchmarks/launchers.md (some minutes)
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.pairs import table
from muvla.evaluation.catalog import get_protocol
from muvla.utils import leases, locks
from muvla.utils.io import write_atomically
from muvla.utils.locks import locked
from muvla.utils.provenance import CODE_VERSION, hardware_line
from sweeps.contrasts import Contrasts
from sweeps.launchers.base import End, Job, Progress
from sweeps.launchers.registry import make_launcher
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.study import Study

HERE = Path(__file__).parent
STUDY = HERE.parent / "experiments" / "recall_quick"
VARIANT = "K=8"
CELLS, UPDATES = 3, 40  # of one worker, of each cell
BEATS = 2000


def small_study(cells: int, updates: int) -> Study:
    """One variant of recall_quick with `cells` training seeds, fewer updates and one short protocol."""
    study = load_study(STUDY).with_base({"budget.updates": updates})
    few = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="few", episodes=32, slots=16)
    return dataclasses.replace(
        study,
        variants={VARIANT: study.variants[VARIANT]},
        seeds=tuple(range(cells)),
        protocols=(few,),
        interventions=(),
        probes=(),
        contrasts=Contrasts(),
    )


def ends(launcher: str, study: Study, data: Path) -> tuple[float, list[float], list[float]]:
    """Run a study's cells in one worker.

    Returns:
        Seconds until the first cell began, seconds between two ends of cells (the first from the beginning of its
        cell), and the seconds that the cells themselves took.
    """
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), data)
        entries = ledger.entries(study, ledger.stores(study))
        jobs = [Job(e.item.label, e.run.absolute(), e.item.cell, tuple(e.missing()), "cpu", 1) for e in entries]
        started, begun, ended = time.monotonic(), [], []

        def on_tick(running: list[Progress]) -> None:
            if not begun and any((item.job.run.folder / "run.json").exists() for item in running):
                begun.append(time.monotonic() - started)

        def on_end(end: End) -> None:
            ended.append(time.monotonic() - started)

        make_launcher(launcher, 1, {}).run(jobs, on_tick, on_end)
        inside = [sum(entry.run.seconds().values()) for entry in entries]
    first = begun[0] if begun else 0.0
    return first, [b - a for a, b in itertools.pairwise([first, *ended])], inside


def launchers(cells: int = CELLS, updates: int = UPDATES) -> list[list[str]]:
    """Per launcher: start-up, seconds per cell from the second cell on, the cell's own work, and cells per hour."""
    rows, study = [], small_study(cells, updates)
    with tempfile.TemporaryDirectory() as data:
        Ledger(Path(data), Path(data)).stores(study)
        for name in ("local", "ray"):
            start, gaps, inside = ends(name, study, Path(data))
            per_cell, work = _mean(gaps[1:]), _mean(inside[1:])
            overhead = per_cell - work
            rows.append(
                [
                    name,
                    f"{start:.1f}",
                    f"{per_cell:.2f}",
                    f"{work:.2f}",
                    f"{overhead:.2f} ({100 * overhead / per_cell:.0f} %)",
                    f"{3600 / per_cell:.0f}",
                ]
            )
    return rows


def heartbeats(beats: int = BEATS) -> list[list[str]]:
    """Microseconds per operation on a lock, and the share of a core that the heartbeat of one lock takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock"

        def take() -> None:
            with locked(path):
                pass

        rows = [["take and release", f"{_micro(take, beats // 10):.0f}", ""]]
        with locked(path):
            (held,) = locks._held
            beat = _micro(held.beat, beats)
            rows.append(["heartbeat", f"{beat:.0f}", f"{1e-4 * beat / leases.HEARTBEAT:.4f} %"])
            rows.append(["check before a line is written", f"{_micro(locks.require_held, beats):.2f}", ""])
    return rows


def _micro(work: Callable[[], None], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        work()
    return 1e6 * (time.perf_counter() - started) / times


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    lines = [
        "# Launchers",
        "",
        f"{datetime.date.today()}, {hardware_line()}, code {CODE_VERSION}. `python -m benchmarks.launchers`",
        "",
        f"One worker runs {CELLS} cells of recall_quick ({VARIANT}, {UPDATES} updates, 32 episodes). Start-up is",
        "the time until the first cell begins. The other columns are means from the second cell on.",
        "",
        *table(
            ["launcher", "start-up, s", "s per cell", "training and evaluation, s", "overhead, s", "cells per hour"],
            launchers(),
        ),
        "Locks on a local disk:",
        "",
        *table(["operation", "µs", "share of a core"], heartbeats()),
    ]
    text = "\n".join(lines).rstrip()
    print(text)
    write_atomically(HERE / "launchers.md", (text + "\n").encode())


if __name__ == "__main__":
    main()
