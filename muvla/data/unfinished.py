"""Imports that did not end: an interrupted import is continued, an import of bad or other files is removed.

The folder stays with its lock, because another process may wait for the lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from muvla.config import DatasetConfig
from muvla.config.serialization import difference
from muvla.data.store import COLUMNS, INDEX, META, read_unfinished
from muvla.errors import DiskError, MuvlaError
from muvla.utils.io import disk_errors, hash_json, read_json, write_json

FILES = "import.json"  # the state of the imported files, while the import is unfinished


def remove_outdated(path: Path, spec: DatasetConfig, origin: str, files: Path, say: Callable[[str], None]) -> None:
    """Removes an unfinished import of other files, another choice of episodes or other options.

    Args:
        path: folder of the dataset, which is locked and not finished.
        spec: configuration of the new import.
        origin: origin of the new import.
        files: file or folder that the new import reads.
        say: called with a line if an import is removed.
    """
    existing, state = read_unfinished(path), {"files": _state(files)}
    if existing is not None:
        spec_before, origin_before = existing
        if spec_before.source is None:
            return  # a collection, which the writer refuses by name
        same = not difference(spec, spec_before) and origin_before == origin
        if not same or ((path / FILES).exists() and read_json(path / FILES) != state):
            _remove(path)
            say(f"{path}: removed an unfinished import of {origin_before}: its files or options have changed")
    write_json(path / FILES, state)


@contextlib.contextmanager
def removed_after_error(path: Path) -> Iterator[None]:
    """Removes the unfinished import at `path` if the block raises an error about the files.

    Their owner will change the files or the options. After a full disk or an interruption the import stays, and the
    same command continues it.
    """
    try:
        yield
    except DiskError:
        raise
    except MuvlaError:
        _remove(path)
        raise
    (path / FILES).unlink(missing_ok=True)


def _state(files: Path) -> str:
    """Returns a hash of the names, sizes and times of files."""
    members = sorted(files.rglob("*")) if files.is_dir() else [files]
    with disk_errors(files):
        present = [(os.fsencode(file).hex(), file.stat()) for file in members if file.is_file()]
    return hash_json([(name, status.st_size, status.st_mtime_ns) for name, status in present])


def _remove(path: Path) -> None:
    """Removes the files of a dataset, and no other file that the folder may hold."""
    with disk_errors(path):
        for name in (INDEX, *(f"{column}.bin" for column in COLUMNS), FILES, META):
            (path / name).unlink(missing_ok=True)
