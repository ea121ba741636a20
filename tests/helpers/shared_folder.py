"""Folders that several machines share, on one machine: other hosts, and `flock` that is missing or ends at its host."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT, TESTS
from muvla.utils import filesystem, leases, owner

HEARTBEAT, SILENCE = 0.05, 1.0  # seconds, in the pretended world


def pretend(host: str, missing: int | None = None, patch=setattr) -> None:
    """Let this process be a process of another machine that shares its folders.

    Args:
        host: name of the machine.
        missing: errno that `flock` gives; None for a `flock` that works, and ends at its host.
        patch: how an attribute is set; `monkeypatch.setattr` for the time of a test.
    """

    def no_flock(*_):
        raise OSError(missing, os.strerror(missing))

    patch(owner.platform, "node", lambda: host)
    patch(owner, "this_machine", lambda: f"boot of {host}")
    patch(leases, "HEARTBEAT", HEARTBEAT)
    patch(leases, "SILENCE", SILENCE)
    if missing is None:
        patch(filesystem, "LOCAL", frozenset())
    else:
        patch(fcntl, "flock", no_flock)


def start(host: str, code: str, *arguments: str | Path, missing: int | None = None) -> subprocess.Popen:
    """Starts Python code as a process of another machine. It finds `Path`, `locked`, `holder` and its arguments."""
    begin = (
        "import os, sys, time; from pathlib import Path; from helpers.shared_folder import pretend\n"
        f"pretend({host!r}, {missing!r}); from muvla.utils.locks import holder, locked\n"
    )
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, "-c", begin + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
