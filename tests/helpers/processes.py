"""Processes that a test starts: their children, their shared memory, and waiting for them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from helpers.paths import ROOT


def running_below(pid: int) -> list[int]:
    """The processes that `pid` has started and that still run, theirs too."""
    found, parents = [], {pid}
    status = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = place.read_text().rpartition(")")[2].split()[:2]
            status[int(place.parent.name)] = (state, int(parent))
    while parents:
        children = {child for child, (state, parent) in status.items() if parent in parents and state != "Z"}
        found += children
        parents = children
    return found


def torchrun(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def wait_until(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.02)
    return bool(condition())


def is_running(pid: int) -> bool:
    """True if the process runs. A dead child that nobody has waited for does not run."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def shared_memory_of(*pids: int) -> set[Path]:
    """The files of /dev/shm that these processes map. Other programs' shared memory is not looked at."""
    files = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = (line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
            files |= {Path(line[5]) for line in fields if len(line) == 6 and line[5].startswith("/dev/shm/")}
    return {file for file in files if file.exists()}
