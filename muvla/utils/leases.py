"""Leases: lock files that need no `flock`. A lease lives as long as its owner's heartbeat.

A lease of the lock `x` is the file `x.lease-N`. The newest number counts. A process takes the lock by linking number
N + 1 into the folder, which exactly one process can do. The file holds the owner; an empty file is a released lease.

- The owner touches its lease every HEARTBEAT seconds.
- An owner of this machine is judged by its process: it holds the lease as long as it lives, and no longer.
- An owner of another machine is judged by its heartbeat. An observer counts seconds on its own clock since the lease's
  time stamp last changed. The clocks of two machines are never compared. After SILENCE seconds without a change the
  lease is free.
- An owner that was silent for longer, because its machine slept or its network was away, sees the newer number. It has
  lost the lock and must not write any more.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from muvla.errors import MuvlaError
from muvla.utils.filesystem import NO_LOCKS, file_system
from muvla.utils.owner import UNKNOWN, Owner, this_host

HEARTBEAT = 5.0  # seconds
SILENCE = 60.0  # seconds without a heartbeat after which another machine's process holds nothing
TEMPORARY = ".tmp"

_counter = itertools.count()


@dataclass(frozen=True)
class Sighting:
    """A lock file as this process saw it first with this time stamp.

    Attributes:
        owner: what the file says.
        stamp: time stamp of the file in nanoseconds; only changes of it count.
        at: when this process saw the stamp first, by `time.monotonic()`.
        beats: whether this process has seen the stamp change under this owner.
    """

    owner: Owner
    stamp: int
    at: float
    beats: bool


_sightings: dict[str, Sighting] = {}


@dataclass(frozen=True)
class Judgement:
    """The state of a lock's owner.

    Attributes:
        holds: False if the owner has ended, or is silent for SILENCE seconds.
        sign: when this process last saw a sign of life, by `time.monotonic()`; -inf if it never saw one.
    """

    holds: bool
    sign: float


def judge(file: Path, owner: Owner, stamp: int) -> Judgement:
    """Judge the owner that a lock file names, from its process or from the changes of the file's time stamp."""
    if owner.is_here:
        return Judgement(owner.runs, time.monotonic())
    now, last = time.monotonic(), _sightings.get(str(file))
    if last is None or last.owner != owner:
        last = Sighting(owner, stamp, now, False)
    elif last.stamp != stamp:
        last = replace(last, stamp=stamp, at=now, beats=True)
    _sightings[str(file)] = last
    return Judgement(now - last.at <= SILENCE, last.at if last.beats else -math.inf)


def read_owner(file: Path) -> tuple[Owner, int] | None:
    """The owner that a lock file names, and the file's time stamp; None for a free lock and for a file that is gone.

    Opening a file makes a network file system fetch its present content.
    """
    try:
        with file.open("rb") as handle:
            content, stamp = handle.read(), os.fstat(handle.fileno()).st_mtime_ns
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # ESTALE: another machine has just removed the file
            raise
        return None
    if not content:
        return None
    try:
        return msgspec.json.decode(content, type=Owner), stamp
    except (msgspec.DecodeError, UnicodeDecodeError):
        return UNKNOWN, stamp


def lease_file(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.lease-{number}")


def lease_numbers(path: Path) -> list[int]:
    """The numbers of all leases of a lock, the newest first."""
    pattern = re.compile(re.escape(path.name) + r"\.lease-([1-9]\d{0,9})")
    with contextlib.suppress(FileNotFoundError):
        matches = (pattern.fullmatch(name) for name in os.listdir(path.parent))
        return sorted((int(match[1]) for match in matches if match), reverse=True)
    return []


def newest_lease(path: Path) -> int:
    """The number of the newest lease; 0 without a lease."""
    return next(iter(lease_numbers(path)), 0)


def lease_holder(path: Path, number: int) -> tuple[Owner, Judgement] | None:
    """The owner of a lease if it holds the lock; None for lease 0."""
    file = lease_file(path, number)
    seen = read_owner(file) if number else None
    if seen is None:
        return None
    verdict = judge(file, *seen)
    return (seen[0], verdict) if verdict.holds else None


def take_lease(path: Path, owner: Owner, number: int) -> bool:
    """Takes a lease of a lock; False if another process was faster.

    Args:
        path: the lock.
        owner: this process.
        number: one more than the newest lease, which the caller has found free. A newer number would not do: it might
            follow a lease that is held by now.
    """
    mine = lease_file(path, number)
    written = path.with_name(f".{path.name}-{next(_counter)}.{this_host()}-{os.getpid()}{TEMPORARY}")
    try:
        written.write_bytes(msgspec.json.encode(owner))
        try:
            os.link(written, mine)
        except FileExistsError:
            if os.stat(written).st_nlink != 2:  # a server may make the link and lose its answer
                return False
        except OSError as error:
            raise no_links(path.parent, error) from None
    finally:
        written.unlink(missing_ok=True)
    # A reader of an old listing may link a number that a later owner has removed. The newer number counts.
    if lease_numbers(path)[:1] != [number]:
        mine.unlink(missing_ok=True)
        return False
    for old in lease_numbers(path)[1:]:
        lease_file(path, old).unlink(missing_ok=True)
    return True


def no_links(folder: Path, error: OSError) -> Exception:
    """The error for a shared file system on which no lease can be taken."""
    if error.errno not in (errno.EPERM, *NO_LOCKS):
        return error
    return MuvlaError(
        str(folder),
        got=f"{file_system(folder) or 'a file system'} without hard links ({os.strerror(error.errno or 0)})",
        expected="a local file system with flock, or a shared file system with hard links",
        remedy="choose a folder on another file system, for example --runs on a local disk",
    )
