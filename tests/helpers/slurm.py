"""A real SLURM on this machine, for the tests marked `cluster`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers.paths import ROOT

SCRIPT = ROOT / "scripts" / "start-slurm.sh"


@contextlib.contextmanager
def running_slurm() -> Iterator[str | None]:
    """Starts SLURM and lets its commands use it until the block ends. Gives the problem if it does not start."""
    folder = Path(tempfile.mkdtemp(prefix="muvla-slurm-", dir="/tmp"))  # the user munge must reach it
    port = 20000 + os.getpid() % 10000  # several test processes have a cluster each
    start = subprocess.run(
        ["bash", SCRIPT, folder],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SLURM_PORT": str(port)},
    )
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield (start.stdout + start.stderr).strip().splitlines()[-1] if start.returncode else None
    finally:
        subprocess.run(["bash", SCRIPT, "--stop", folder], check=False, capture_output=True)
        os.environ.pop("SLURM_CONF")
        if before:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def squeue() -> list[str]:
    """The jobs that wait or run: id, state, node."""
    command = ["squeue", "--noheader", "--array", "--format=%i %T %N"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
