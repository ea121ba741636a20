"""Kill a sweep at chosen file operations, in a process of its own: `python -m helpers.killed_sweep FOLDER OF_EACH`.

The sweep runs in forks of this process. Other tests leave threads and caches in the process of pytest, which a fork
would inherit.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.figure
import pandas
import torch

import analysis.page.write
from helpers.kill_points import contents, run_in_a_fork
from muvla.cli.main import main
from muvla.runs.run import Run
from muvla.runs.verify import run_folders, verify_run
from sweeps.launchers.base import End, Launcher, Progress
from sweeps.launchers.registry import LAUNCHERS
from sweeps.loader import load_study
from sweeps.work import run_job

STUDY = """
from dataclasses import replace as replace_
from muvla.config import *
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study
base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=4),
    data=DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=3)),
    memory=MemoryConfig("tokens", 2), truncation=4, budget=BudgetConfig(slots=2, window=4, updates=4),
)
few = replace_(get_protocol("recall-position3-rh@1"), name="few", episodes=3, slots=3)
study = Study("killed", "a study that is killed", base, {"K=4": tbptt(4, 2)}, ("memory.m",), (0,), (few,), ("zero",))
"""


FORKS_SHARE = (matplotlib.figure, pandas, analysis.page.write)  # imported once, before the forks


class InThisProcess(Launcher):
    """One job after the other, in the process that counts its file operations."""

    def run(self, jobs, on_tick, on_end, deadline=None):
        for job in jobs:
            status = run_job(job, lambda *_: None, lambda: False)
            on_tick([Progress(job)])
            on_end(End(job, status))


class KilledSweep:
    """A study, and the end of a sweep that nobody disturbed."""

    def __init__(self, folder):
        (folder / "study.py").write_text(STUDY)
        self.folder = folder
        self.place = folder / "place"
        load_study(folder / "study.py")
        _, self.names = run_in_a_fork(self.sweep, self.place)
        self.whole = contents(self.place)

    def sweep(self):
        place = ["--runs", str(self.place / "runs"), "--data", str(self.place / "data")]
        return main(["sweep", str(self.folder), "--launcher", "here", "--no-tracking", "--device", "cpu", *place])

    def points(self, of_each):
        """At most `of_each` operations of every kind, spread evenly over the sweep."""
        by_kind = defaultdict(list)
        for number, name in enumerate(self.names, start=1):
            by_kind[name].append(number)
        spread = []
        for numbers in by_kind.values():
            step = max(1, len(numbers) / of_each)
            spread += {numbers[int((i + 0.5) * step)] for i in range(min(of_each, len(numbers)))}
        return sorted(spread)

    def faults(self, point):
        """Kill the sweep there, and continue it with the same command: what differs from the undisturbed end."""
        shutil.rmtree(self.place)
        killed, _ = run_in_a_fork(self.sweep, self.place, kill_at=point)
        run_in_a_fork(self.sweep, self.place)
        end, runs = contents(self.place), self.place / "runs"
        faults = [] if killed else ["not killed"]
        faults += [
            name for name in sorted(end.keys() | self.whole.keys()) if end.get(name, "") != self.whole.get(name, "")
        ]
        for name in run_folders(runs):
            verification = verify_run(Run(runs, self.place / "data", name))
            faults += map(str, verification.faults)
            faults += ["not sealed"] if verification.unsealed or verification.unfinished else []
        return {f"operation {point}, {self.names[point - 1]}": faults} if faults else {}


def check(folder: Path, of_each: int) -> dict:
    """Kill the sweep at `of_each` operations of every kind.

    Returns:
        the names of all operations, the points where the sweep was killed, and what differs at each such point.
    """
    sweep_to_kill = KilledSweep(folder)
    points = sweep_to_kill.points(of_each)
    faults = {where: fault for point in points for where, fault in sweep_to_kill.faults(point).items()}
    return {"operations": sweep_to_kill.names, "points": points, "faults": faults}


if __name__ == "__main__":
    torch.set_num_threads(1)
    LAUNCHERS.members["here"] = "helpers.killed_sweep:InThisProcess"
    print(json.dumps(check(Path(sys.argv[1]), int(sys.argv[2]))))
