"""Files of others: clear errors for what the operating system refuses, sizes before reading."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from muvla.errors import DiskError, MuvlaError
from muvla.utils.content import require_real

MIB = 2**20
TEXT_BYTES = 16 * MIB  # of a file of metadata; parsed JSON takes up to 25 times its text
NAME_BYTES = 255  # of one name, on the usual file systems
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
BROKEN_DISK = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
CONTINUES = "run the same command again; what is already written is kept and continued"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about a file into a MuvlaError that names the file and the remedy.

    A full, a read-only and a broken disk become a DiskError, which marks no run as failed. Errors of the network pass.
    """
    try:
        yield
    except OSError as error:
        translated = file_error(path, error)
        if translated is None:
            raise
        raise translated from error


def file_error(path: Path, error: OSError) -> MuvlaError | None:
    """The MuvlaError for an OSError about a file. None for an OSError that no file causes.

    Args:
        path: the file, unless the error names another file.
        error: raised by the operating system.
    """
    number = error.errno or 0
    file = str(path if error.filename is None or isinstance(error.filename, int) else os.fsdecode(error.filename))
    got = os.strerror(number)
    if number in NO_ROOM:
        remedy = f"free some space and {CONTINUES}"
        return DiskError(file, got=got, expected="a writable disk with room", remedy=remedy)
    if number in NOT_WRITABLE:
        remedy = f"give this user the rights that `ls -ld` shows, or choose another folder; {CONTINUES}"
        return DiskError(file, got=got, expected="a file that this user may read or write", remedy=remedy)
    if number in BROKEN_DISK:
        return DiskError(file, got=got, expected="a disk that answers", remedy=f"mount the disk again and {CONTINUES}")
    if number not in _FACTS:
        return None
    expected, remedy = _FACTS[number]
    return MuvlaError(
        shorten(file, 1000), got=got, expected=expected, remedy=remedy.format(ancestor=_ancestor(Path(file)))
    )


# errno → what is expected, and the remedy.
_FACTS = {
    errno.ENOENT: ("a path that exists", "`ls {ancestor}` lists what exists"),
    errno.ENOTDIR: ("a path below folders", "{ancestor} is a file: choose a path that does not lie below the file"),
    errno.EISDIR: ("a file", "remove the folder of this name, or choose another name"),
    errno.EEXIST: ("a free name", "remove what has this name, or choose another name"),
    errno.ENOTEMPTY: ("an empty folder", "remove what the folder holds, or choose another name"),
    errno.ELOOP: ("a path without a circle of links", "remove the link that points at itself"),
    errno.ENAMETOOLONG: (f"names of at most {NAME_BYTES} bytes", "choose a shorter name"),
    errno.EMFILE: ("fewer open files", "raise the limit with `ulimit -n 4096`"),
    errno.EINVAL: ("a name that the file system can hold", "choose a name of letters, digits, `-`, `_` and `.`"),
}


def _ancestor(path: Path) -> Path:
    """The nearest part of a path that exists."""
    for part in path.parents:
        with contextlib.suppress(OSError, ValueError):
            part.lstat()
            return part
    return Path("/")


def shorten(text: str, length: int = 300) -> str:
    """At most `length` characters of a text, for an error."""
    return text if len(text) <= length else f"{text[: length - 40]}… ({len(text)} characters)"


def require_file(path: Path, limit: int | None = None) -> int:
    """Return the size of a regular file in bytes.

    Raises MuvlaError for no file, a folder, a pipe or a device, a placeholder, and more than `limit` bytes.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise file_error(path, error) or _unusable(path, str(error)) from None
    except ValueError:  # a NUL byte, or half of a surrogate pair
        raise _unusable(path, "a path that no file system can hold") from None
    if not stat.S_ISREG(status.st_mode):
        raise _unusable(path, "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device")
    require_real(path)
    if limit is not None and status.st_size > limit:
        raise MuvlaError(
            str(path),
            got=f"{status.st_size} bytes",
            expected=f"at most {limit} bytes in a file of this kind",
            remedy="this file holds something else: pass the folder that the format's own program wrote",
        )
    return status.st_size


def _unusable(path: Path, got: str) -> MuvlaError:
    return MuvlaError(
        shorten(repr(str(path))), got=f"{got} at this path", expected="a regular file", remedy="pass the path of a file"
    )


def read_bytes(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """Read a file. Raises MuvlaError as `require_file` does."""
    require_file(path, limit)
    with disk_errors(path), path.open("rb") as handle:
        return handle.read(limit + 1)[:limit]


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Read a file as UTF-8. Raises MuvlaError as `require_file` does, and for other bytes."""
    content = read_bytes(path, limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MuvlaError(
            str(path),
            got=f"bytes that are no UTF-8, at byte {error.start}",
            expected="text in UTF-8",
            remedy="restore the file from its source, or convert a text of another encoding with `iconv -t UTF-8`",
        ) from None
