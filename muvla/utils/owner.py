"""Who works somewhere: host, boot, process id and start time of a process, written into a lock."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
from pathlib import Path

import msgspec

PROC = Path("/proc")
ENDED = "ZX"  # states of a process that has ended and whose parent has not asked for its exit status


class Owner(msgspec.Struct, frozen=True):
    """A process that holds a lock.

    Attributes:
        host: name of the machine.
        machine: identity of the boot and of the space of process ids; equal for processes that can see each other.
        pid: process id.
        started: start of the process in clock ticks since the boot; 0 where the system does not say.
        since: when the lock was taken, in seconds since 1970 by the owner's clock; for people only.
    """

    host: str
    machine: str
    pid: int
    started: int
    since: float

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"{self.host}:{self.pid} since {when}" if self.pid else "a process of unknown id"

    @property
    def is_here(self) -> bool:
        """True if the owner runs on this machine, in the same space of process ids and since the same boot."""
        return self.machine == this_machine()

    @property
    def runs(self) -> bool:
        """True if a process of this machine has the owner's id and start time, and has not ended."""
        return start_of(self.pid) == self.started


UNKNOWN = Owner("", "", 0, 0, 0.0)


def this_process() -> Owner:
    """This process as an owner, from now on."""
    return Owner(platform.node(), this_machine(), os.getpid(), start_of(os.getpid()) or 0, time.time())


@functools.lru_cache(maxsize=1)
def this_machine() -> str:
    """Identity of this boot and of the space of process ids. A container may have a space of its own."""
    return _hash(_read("sys/kernel/random/boot_id"), _process_space(), platform.node())


@functools.lru_cache(maxsize=1)
def this_host() -> str:
    """Identity of this machine that survives a boot: 8 hexadecimal digits."""
    return _hash(_read(Path("/etc/machine-id")), _process_space(), platform.node())[:8]


def start_of(pid: int) -> int | None:
    """Start of a living process in clock ticks since the boot. None for a process that does not exist or has ended."""
    if not PROC.joinpath("self/stat").exists():  # no Linux
        return 0 if _is_signalled(pid) else None
    state, _, rest = _read(f"{pid}/stat").rpartition(")")[2].strip().partition(" ")
    return int(rest.split()[18]) if state and state not in ENDED else None


def _is_signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _process_space() -> str:
    try:
        return os.readlink(PROC / "self/ns/pid")
    except OSError:
        return ""


def _read(name: str | Path) -> str:
    try:
        return (PROC / name).read_text(errors="replace").strip()
    except OSError:
        return ""


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
