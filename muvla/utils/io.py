"""Files: atomic writes, appended JSON lines, and clear errors for a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muvla.utils.files import disk_errors, read_bytes, read_text
from muvla.utils.foreign import parse_json
from muvla.utils.leases import TEMPORARY
from muvla.utils.locks import require_held
from muvla.utils.owner import start_of, this_host

LINES_BYTES = 2**28  # of a file of rows
HOST = this_host()  # process ids of another machine mean nothing here
_WRITER = re.compile(rf"\..*\.(?:(?P<host>[0-9a-f]{{8}})-)?(?P<pid>\d{{1,10}}){re.escape(TEMPORARY)}", re.DOTALL)


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
        if writer and writer["host"] in (None, HOST) and start_of(int(writer["pid"])) is None:
            yield folder / name


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing: temporary file, fsync, rename.

    Raises DiskError if this process has lost one of its locks.
    """
    require_held()
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
    """Append one JSON line and flush. A last line that a crash cut is removed first.

    Raises DiskError if this process has lost one of its locks.
    """
    require_held()
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
