"""The training of one cell by several processes of one machine, which torchrun starts for the cell's process.

The cell's process holds the lock of the run folder, and the ranks work for it: they end when it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from muvla.data.mixture import open_data
from muvla.errors import Interrupted, RankLost
from muvla.runs.train import train_cell
from muvla.training.distributed.torchrun import join_ranks
from muvla.training.run import Progress
from muvla.utils.files import CONTINUES
from muvla.utils.locks import require_held
from muvla.utils.owner import start_of
from sweeps.launchers.base import Job
from sweeps.launchers.parcel import dump, load, pack, unpack

POLL = 0.5  # seconds
JOB, PROGRESS, STOP, ERROR = "job.pickle", "progress.json", "stop", "error.pickle"  # files that both sides exchange


def train_in_ranks(job: Job, progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
    """Trains the job's cell in `job.ranks` processes to its last update.

    Args:
        job: the job; its run folder is locked by this process.
        progress: called every few updates.
        should_stop: asked about twice a second.

    Raises:
        Interrupted: `should_stop` returned True; a fresh checkpoint is on disk.
        RankLost: a rank has ended without an error of its own.
        MuvlaError: an error of a rank.
    """
    with tempfile.TemporaryDirectory(prefix="muvla-ranks-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(dump((pack(job), os.getpid(), start_of(os.getpid()))))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.ranks}"]
        paths = os.pathsep.join(os.path.abspath(place) for place in sys.path)
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(job.threads)}
        ranks = subprocess.Popen([*command, "-m", "sweeps.ranks", name], env=environment)
        try:
            _follow(ranks, folder, progress, should_stop)
        finally:
            if ranks.poll() is None:
                ranks.terminate()
                ranks.wait()
        if (folder / ERROR).exists():
            raise load((folder / ERROR).read_bytes())
        if ranks.returncode:
            raise RankLost(
                "ranks",
                got=f"a rank that is gone (torchrun ended with status {ranks.returncode})",
                expected=f"{job.ranks} ranks until the last update",
                remedy=CONTINUES,
            )


def _follow(ranks: subprocess.Popen, folder: Path, progress: Callable, should_stop: Callable[[], bool]) -> None:
    seen = None
    while ranks.poll() is None:
        time.sleep(POLL)
        require_held()
        if should_stop():
            (folder / STOP).touch()
        with contextlib.suppress(OSError, ValueError):  # not yet written
            line = json.loads((folder / PROGRESS).read_text())
            if line != seen:
                seen = line
                progress(Progress(*line))


def work(folder: Path) -> None:
    """One rank: trains the job of the folder together with the others."""
    parcel, parent, started = load((folder / JOB).read_bytes())
    threading.Thread(target=_end_with, args=(parent, started), daemon=True).start()
    job = unpack(parcel)

    def progress(p: Progress) -> None:
        written = folder / f"{PROGRESS}.new"
        written.write_text(json.dumps([p.update, p.updates, p.loss, p.frames_per_second]))
        written.replace(folder / PROGRESS)

    with join_ranks(sharded=False) as ranks:
        try:
            store = open_data(job.run.data, job.cell.data)
            stop = (folder / STOP).exists
            report = progress if ranks.is_main else lambda _: None
            train_cell(job.run, job.cell, store, job.device.partition(":")[0], report, stop, job.options, ranks)
        except (Exception, Interrupted) as error:
            if ranks.is_main and not (folder / ERROR).exists():
                (folder / ERROR).write_bytes(dump(error))


def _end_with(parent: int, started: int | None) -> None:
    """Ends this rank when the cell's process has ended: the run folder is then free for another process."""
    while start_of(parent) == started:
        time.sleep(POLL / 2)
    os._exit(1)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
