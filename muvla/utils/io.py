"""Files: atomic writes, appended JSON lines, locks, and clear errors for a full disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from muvla.errors import MuvlaError
from muvla.utils.files import disk_errors, read_bytes, read_text
from muvla.utils.foreign import parse_json

LINES_BYTES = 2**28  # of a file of rows
# A lock that the file system does not have: Lustre without flock, some network file systems.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
LOOK = 0.5  # seconds to try; `holder` takes a lock for an instant, and must not make another process give up


TEMPORARY = ".tmp"
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # process ids of another machine mean nothing here
_WRITER = re.compile(rf"\..*\.(?:(?P<host>[0-9a-f]{{8}})-)?(?P<pid>\d{{1,10}}){re.escape(TEMPORARY)}", re.DOTALL)


@contextlib.contextmanager
def locked(path: Path, wait: bool = False, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `path` as a lock until the block or this process ends.

    The kernel keeps the lock (flock), so that a killed process leaves no stale lock behind.

    Args:
        path: the lock's file.
        wait: wait while another process holds the lock.
        waiting: called about every 20 ms while waiting; it may raise to give up.

    Raises:
        MuvlaError: another process holds the lock, and `wait` is False.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path), path.open("a+") as handle:
        deadline = math.inf if wait else time.monotonic() + LOOK
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise MuvlaError(
                    str(path),
                    got=f"held by process {holder(path)}",
                    expected="no other process here",
                    remedy="wait for this process, or stop it",
                )
            waiting()
            time.sleep(0.02)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def require_locks(folder: Path) -> None:
    """Raises MuvlaError if the file system of `folder` has no locks."""
    with locked(folder / ".locks", wait=True):
        pass


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise MuvlaError(
            handle.name,
            got=f"a file system without locks ({os.strerror(error.errno or 0)})",
            expected="flock, without which two processes would compute the same and write it twice",
            remedy="choose a folder on another file system, for example --runs on a local disk",
        ) from None
    return True


def holder(path: Path) -> int | None:
    """Process id of the living holder of a lock, 0 if the id is not known; None if nobody holds the lock.

    Nobody holds a lock on a file system without locks.
    """
    try:
        with path.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        content = path.read_bytes()
        return int(content) if content.isdigit() else 0
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return None


def leftovers(folder: Path, prefix: str = ".") -> Iterator[Path]:
    """Temporary files directly in a folder whose writers have ended.

    A file of a living process, or of another machine, is never among them.

    Args:
        folder: the folder.
        prefix: beginning of the files' names.
    """
    if not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        writer = _WRITER.fullmatch(name) if name.startswith(prefix) else None
        if writer and writer["host"] in (None, HOST) and not _is_alive(int(writer["pid"])):
            yield folder / name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # the process of another user; a number that is none of a process
        pass
    return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{HOST}-{os.getpid()}{TEMPORARY}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in leftovers(path.parent, f".{path.name}."):
                left.unlink(missing_ok=True)
            with temporary.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    write_atomically(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a file of JSON as plain data. Raises MuvlaError for a file that cannot be read and for broken JSON."""
    return parse_json(read_text(path), str(path))


def append_line(path: Path, data: Any) -> None:
    """Append one JSON line and flush. A last line that a crash cut is removed first."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_torn_line(path)
        with path.open("ab") as handle:
            handle.write((json.dumps(data) + "\n").encode())  # ASCII: any text of an error can be written
            handle.flush()


def drop_torn_line(path: Path) -> None:
    """Remove a last line without a newline, which a killed process or a full disk leaves behind."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as handle:
        handle.seek(-1, os.SEEK_END)
        if handle.read(1) == b"\n":
            return
        handle.seek(0)
        content = handle.read()
        handle.truncate(content.rfind(b"\n") + 1)


def read_lines(path: Path) -> list[Any]:
    """Every complete JSON line. A torn last line is left out; a broken line elsewhere raises MuvlaError."""
    with disk_errors(path):
        if not path.exists():
            return []
    content = read_bytes(path, LINES_BYTES)
    lines = content[: content.rfind(b"\n")].split(b"\n") if b"\n" in content else []
    return [parse_json(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def dump_canonical(data: Any) -> str:
    """Canonical JSON of plain data: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def hash_json(data: Any, length: int = 12) -> str:
    """First `length` hexadecimal digits of the SHA-256 of the canonical JSON of plain data."""
    return hashlib.sha256(dump_canonical(data).encode()).hexdigest()[:length]
