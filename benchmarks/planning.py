"""Seconds and memory of plan, status and report by the number of cells.

    python -m benchmarks.planning         prints the table and writes benchmarks/planning.md
    python -m benchmarks.planning 1000    the same up to 1,000 cells; writes nothing

The study is recall_quick with learning rates as variants and five training seeds. No cell has begun for `plan` and
`status`. The report reads made rows of finished cells, as `muvla report --committed` does. Seconds are
those of the processor, in one process per line, without the imports of the benchmark. The exponent compares a line with
the line above: 1 is linear.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pairs import table
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

if TYPE_CHECKING:
    from sweeps.study import Study

HERE = Path(__file__).parent
CELLS = (10, 100, 1_000, 10_000)
SEEDS = 5
EPISODES = 20  # of every cell of the report
THIS = [sys.executable, "-m", "benchmarks.planning"]


def study_of(cells: int) -> Study:
    """recall_quick with a learning rate per variant."""
    from sweeps.contrasts import Contrasts
    from sweeps.loader import load_study

    study = load_study(HERE.parent / "experiments" / "recall_quick")
    rates = {f"lr {i}": {"optimizer.lr": 1e-4 * (1 + 0.01 * i)} for i in range(cells // SEEDS)}
    return dataclasses.replace(study, variants=rates, factors=("optimizer.lr",), contrasts=Contrasts(), predictions=())


def measure(what: str, cells: int, root: Path) -> dict[str, float]:
    """CPU seconds and peak memory (MB) of one command, in this process."""
    command = prepare_report(cells, root) if what == "report" else prepare_planning(what, cells, root)
    started = time.process_time()
    command()
    seconds = time.process_time() - started
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def prepare_planning(what: str, cells: int, root: Path) -> Callable[[], object]:
    """The command `plan` or `status` on a study whose data are there."""
    from sweeps.ledger import Ledger
    from sweeps.sweep import SweepOptions, run_study

    study, ledger = study_of(cells), Ledger(root / "runs", root / "data")
    stores = ledger.stores(study)
    run_study(study.narrowed(seeds=(0,), variants=("lr 0",)), ledger, SweepOptions(1, plan_only=True), lambda _: None)
    if what == "plan":
        return lambda: run_study(study, ledger, SweepOptions(1, plan_only=True, track=False), lambda _: None)
    return lambda: (study.check(), [entry.state for entry in ledger.entries(study, stores)])


def prepare_report(cells: int, root: Path) -> Callable[[], object]:
    """The command `report` on rows that another process has made."""
    from analysis.page.write import write_results_page
    from analysis.report.gather import report_of
    from analysis.report.report import write_report
    from sweeps.committed import committed_results
    from sweeps.rows_reader import read_rows_file

    file, study, out = root / f"{cells}.jsonl.gz", report_study(cells), root / f"report-{cells}"
    subprocess.run([*THIS, "rows", str(cells), str(root)], check=True)

    def report() -> None:
        read = [committed_results(study, read_rows_file(file))]
        contents = report_of(read, "a benchmark")
        write_report([cell for each in read for cell in each.records], out, contents, say=lambda _: None)
        write_results_page(read, contents, out, root)

    return report


def report_study(cells: int) -> Study:
    """The study with one short protocol, without interventions and probes."""
    study = study_of(cells)
    few = dataclasses.replace(study.protocols[0], name="few", episodes=EPISODES)
    return dataclasses.replace(study, protocols=(few,), interventions=(), probes=())


def make_rows(cells: int, root: Path) -> None:
    """Write a file of rows in which every cell has the first episodes of a committed cell."""
    from muvla.config import identity
    from muvla.evaluation.records import result_id
    from sweeps.committed import load_results
    from sweeps.rows_writer import write_rows
    from sweeps.study_results import StudyResults

    committed = load_results(HERE.parent / "experiments" / "recall_quick")
    patterns = [results for _, results in committed.cells]
    study = report_study(cells)
    (few,) = study.protocols
    made = []
    for number, item in enumerate(study.cells()):
        pattern = patterns[number % len(patterns)]
        rows = next(rows for (_, name), rows in pattern.rows.items() if name == "none")[:EPISODES]
        train = identity.train_id(item.cell, patterns[0].data, None)
        changes = {
            "result": result_id(train, few, "none"),
            "train": train,
            "training_seed": item.cell.seed,
            "protocol": few.id,
            "protocol_hash": few.hash,
            "provenance": patterns[0].rows[next(iter(patterns[0].rows))][0].provenance,
        }
        rows = {(few.id, "none"): [dataclasses.replace(row, **changes) for row in rows]}
        empty = {"never_fired": (), "measurements": {}, "chunk_changes": {}, "unsealed": frozenset()}
        same = {"train": train, "data": patterns[0].data, "provenance": patterns[0].provenance}
        made.append((item, dataclasses.replace(pattern, rows=rows, **empty, **same)))
    write_rows(root / f"{cells}.jsonl.gz", [StudyResults(study, tuple(made))])


def main(most: int = CELLS[-1]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what in ("plan", "status", "report"):
            before = None
            for cells in (cells for cells in CELLS if cells <= most):
                words = [*THIS, what, str(cells), folder]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                got = json.loads(done.stdout.splitlines()[-1])
                slope = "–" if before is None else f"{math.log10(got['seconds'] / before):.2f}"
                rows.append([what, f"{cells:,}", f"{got['seconds']:.2f}", f"{got['memory']:.0f}", slope])
                before = got["seconds"]
    lines = [
        "# Planning at scale",
        "",
        f"Generated by `python -m benchmarks.planning` on {datetime.date.today()}: {hardware_line()}; code version "
        f"{CODE_VERSION}. The study has a variant per learning rate and {SEEDS} training seeds. No cell has begun for "
        f"plan and status. The report reads {EPISODES} made episodes of every cell and writes all of its files.",
        "",
        *table(["command", "cells", "CPU seconds", "peak memory (MB)", "exponent"], rows),
    ]
    text = "\n".join(lines)
    print(text)
    if most == CELLS[-1]:
        write_atomically(HERE / "planning.md", text.encode())


if __name__ == "__main__":
    if sys.argv[1:2] == ["rows"]:
        make_rows(int(sys.argv[2]), Path(sys.argv[3]))
    elif len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main(*map(int, sys.argv[1:]))
