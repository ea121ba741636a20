"""Locks on folders: one process at a time, on one machine or on many that share the folder.

On a local file system the kernel keeps the lock (`flock`), so that a killed process holds nothing. Where `flock` is
missing, and on every file system that is not known to be local, a lease with a heartbeat takes its place
(`muvla.utils.leases`). Both write the same owner and the same heartbeat, and each respects the other. A folder may
therefore be local to one machine and shared with the others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from muvla.errors import Busy, DiskError
from muvla.utils import leases
from muvla.utils.files import CONTINUES, disk_errors
from muvla.utils.filesystem import NO_LOCKS, file_system, is_local
from muvla.utils.leases import (
    Judgement,
    judge,
    lease_file,
    lease_holder,
    lease_numbers,
    newest_lease,
    read_owner,
    take_lease,
)
from muvla.utils.owner import UNKNOWN, Owner, this_process

LOOK = 0.5  # seconds to try; `holder` takes a lock for an instant, and must not make another process give up
SHORT, LONG = 0.02, 0.5  # seconds between two tries: the first pause, and the longest one

_held: list[Held] = []


@dataclass(eq=False)
class Held:
    """A lock that this process holds, with its heartbeat.

    Attributes:
        path: the lock.
        number: number of the lease; 0 for `flock`.
        handle: the open file that the kernel has locked; None for a lease.
        lost: whether another process has taken the lock over.
        last: when the heartbeat last succeeded, by `time.monotonic()`.
    """

    path: Path
    number: int
    handle: IO[bytes] | None
    lost: bool = False
    last: float = field(default_factory=time.monotonic)

    @property
    def file(self) -> Path:
        return lease_file(self.path, self.number) if self.number else self.path

    def beat(self) -> None:
        """Touch the file, and notice a newer lease. A disk that does not answer is tried again."""
        with contextlib.suppress(OSError):
            newest = newest_lease(self.path)
            # A lease that gave way to this process's `flock` at once is newer too, and is free.
            if newest > self.number and (self.number or read_owner(lease_file(self.path, newest))):
                self.lost = True
            os.utime(self.file)
            self.last = time.monotonic()
        if self.number and not self.file.exists():
            self.lost = True

    def beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(leases.HEARTBEAT):
            self.beat()

    def require(self) -> None:
        """Raises DiskError if the lock is lost."""
        if time.monotonic() - self.last > leases.SILENCE / 2:  # this process or the disk slept
            self.beat()
        if self.lost or time.monotonic() - self.last > leases.SILENCE:
            raise DiskError(
                str(self.path),
                got="a lock that this process has lost: its heartbeat was away too long",
                expected=f"a heartbeat at least every {leases.SILENCE:.0f} s",
                remedy=CONTINUES,
            )

    def release(self) -> None:
        """Empty the file, which frees the lock. A lease that another process has replaced stays as it is."""
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self.file, 0)
        if self.handle:
            self.handle.close()


@contextlib.contextmanager
def locked(path: Path, wait: bool = False, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `path` as a lock until the block or this process ends.

    Without `wait`, a lock whose owner shows a sign of life is refused. The lock of a silent owner on another machine
    is taken when `muvla.utils.leases.SILENCE` seconds have passed.

    Args:
        path: the lock's file.
        wait: wait while another process holds the lock.
        waiting: called at every try while waiting; it may raise to give up.

    Raises:
        Busy: another process holds the lock, and `wait` is False.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path):
        held = _take_soon(path, wait, waiting)
    ended = threading.Event()
    threading.Thread(target=held.beat_until, args=(ended,), name=f"heartbeat of {path}", daemon=True).start()
    _held.append(held)
    try:
        yield
    finally:
        _held.remove(held)
        ended.set()
        with disk_errors(path):
            held.release()


def require_held() -> None:
    """Raises DiskError if this process has lost one of its locks, and must not write what the lock protects."""
    for held in _held:
        held.require()


def require_locks(folder: Path) -> None:
    """Raises MuvlaError if no lock can be taken in `folder`."""
    with locked(folder / ".locks", wait=True):
        pass


def holder(path: Path) -> Owner | None:
    """The holder of a lock; None if nobody holds the lock.

    A process of another machine counts as the holder until it has been silent for `muvla.utils.leases.SILENCE` seconds
    under the eyes of this process.
    """
    held = _look(path)
    return None if held is None else held[0]


def remove_lock(path: Path) -> None:
    """Remove the files of a lock that nobody needs any more."""
    for file in (path, *(lease_file(path, number) for number in lease_numbers(path))):
        file.unlink(missing_ok=True)


def watch(paths: list[Path], patience: Callable[[], bool] = lambda: True) -> dict[Path, Owner]:
    """Who holds these locks for certain. Waits for a sign of life of holders on other machines, at most SILENCE.

    Args:
        paths: the locks.
        patience: asked at every look; False ends the wait, and holders without a sign of life count as holders.
    """
    started = time.monotonic()
    while True:
        held = {path: seen for path in paths if (seen := _look(path))}
        if all(sign >= started for _, sign in held.values()) or not patience():
            return {path: owner for path, (owner, _) in held.items()}
        time.sleep(LONG)


def describe_locks(folder: Path) -> str:
    """The lock of an existing folder and its file system, for people.

    Raises:
        MuvlaError: no lock can be taken there.
    """
    with disk_errors(folder), tempfile.TemporaryDirectory(prefix=".locks-", dir=folder) as place:
        path = Path(place) / "lock"
        with locked(path):
            by_kernel = not lease_numbers(path)
    method = "flock" if by_kernel else f"leases, free after {leases.SILENCE:.0f} s without a heartbeat"
    return f"{method} ({file_system(folder) or 'unknown file system'} in {folder})"


def _take_soon(path: Path, wait: bool, waiting: Callable[[], None]) -> Held:
    started, pause = time.monotonic(), SHORT
    deadline = math.inf if wait else started + LOOK
    while (held := _take(path)) is None:
        seen = _look(path)
        if time.monotonic() > deadline and seen and seen[1] >= started:
            raise Busy(
                str(path),
                got=f"held by {seen[0]}",
                expected="no other process here",
                remedy="wait for this process, or stop it",
            )
        waiting()
        time.sleep(pause)
        pause = min(LONG, 1.5 * pause)
    return held


def _take(path: Path) -> Held | None:
    """The lock, or None if another process holds the lock."""
    if is_local(path.parent):
        handle = path.open("ab+", buffering=0)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        except OSError as error:
            handle.close()
            if error.errno not in NO_LOCKS:
                raise
        else:
            return _keep_flock(path, handle)
    newest = newest_lease(path)
    if _flock_holder(path) or lease_holder(path, newest) or not take_lease(path, this_process(), newest + 1):
        return None
    held = Held(path, newest + 1, None)
    if _flock_holder(path):  # a process of the server came at the same time
        held.release()
        return None
    return held


def _keep_flock(path: Path, handle: IO[bytes]) -> Held | None:
    """The lock that the kernel has given, unless a process of another machine has a lease."""
    handle.truncate(0)
    handle.write(msgspec.json.encode(this_process()))
    held = Held(path, 0, handle)
    if lease_holder(path, newest_lease(path)):
        held.release()
        return None
    for number in lease_numbers(path):
        lease_file(path, number).unlink(missing_ok=True)
    return held


def _look(path: Path) -> tuple[Owner, float] | None:
    """The holder of a lock, and when this process last saw a sign of life, by `time.monotonic()`."""
    try:
        by_kernel = _kernel_says(path)
    except BlockingIOError:
        seen = read_owner(path)
        return seen[0] if seen else UNKNOWN, time.monotonic()
    held = (None if by_kernel else _flock_holder(path)) or lease_holder(path, newest_lease(path))
    return (held[0], held[1].sign) if held else None


def _kernel_says(path: Path) -> bool:
    """True if the kernel of this machine says that no process holds `flock`; raises BlockingIOError if one does."""
    try:
        with path.open("rb") as handle:
            if not is_local(path.parent):
                return False
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOENT, *NO_LOCKS):
            raise
        return False
    return True


def _flock_holder(path: Path) -> tuple[Owner, Judgement] | None:
    """The holder of `flock` as the lock's file names it, where this machine cannot ask the kernel."""
    seen = read_owner(path)
    if seen is None or seen[0] == UNKNOWN:
        return None
    verdict = judge(path, *seen)
    return (seen[0], verdict) if verdict.holds else None
