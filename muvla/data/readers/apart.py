"""Texts of HDF5 files, read by a process that can be stopped.

The HDF5 library does not end on some damaged heaps, which hold texts of variable length, and nothing stops it from
inside of the process.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from muvla.data.readers.hdf5 import find_node, list_texts, read_array
from muvla.data.readers.source import mismatch
from muvla.errors import MuvlaError
from muvla.utils.hdf5 import open_hdf5

SECONDS = 5.0  # without an answer; a group takes less than a millisecond


def read_texts(path: Path, groups: Sequence[str], arrays: Iterable[str] = ()) -> list[dict[str, str]]:
    """Returns the texts of every group: its attributes by name, and the first text of arrays by their paths.

    Args:
        path: the file.
        groups: paths of groups in the file; a missing group has no texts.
        arrays: paths in each group; a missing array is left out.

    Raises:
        MuvlaError: a link, damage, or a group at which the library does not end.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(path, groups, tuple(arrays), writing)
    os.close(writing)
    texts: list[dict[str, str]] = []
    try:
        for line in _lines(reading):
            answer = json.loads(line)
            if "error" in answer:
                raise MuvlaError(answer["field"], **answer["error"])
            texts.append(answer["texts"])
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if len(texts) < len(groups):
        where = f"{path}: {groups[len(texts)]}"
        raise mismatch(where, "texts at which the HDF5 library stops or does not end", "whole texts")
    return texts


def _answer(path: Path, groups: Sequence[str], arrays: tuple[str, ...], writing: int) -> None:
    """Writes a line of JSON per group and ends this process."""
    try:
        with open_hdf5(path) as file, os.fdopen(writing, "w", encoding="utf-8") as answers:
            for group in groups:
                print(json.dumps(_read_group(file, group, arrays, path)), file=answers, flush=True)
    finally:
        os._exit(0)


def _read_group(file, group: str, arrays: tuple[str, ...], path: Path) -> dict:
    where = f"{path}: {group}"
    try:
        node = find_node(file, group, str(path))
        texts = list_texts(node, where) if hasattr(node, "attrs") else {}
        for name in arrays:
            if node is not None and find_node(node, name, where) is not None:
                texts[name] = str(read_array(node, name, where).ravel()[0])
    except MuvlaError as error:
        parts = {"got": str(error.got), "expected": error.expected, "remedy": error.remedy}
        return {"field": error.field, "error": parts}
    return {"texts": texts}


def _lines(reading: int) -> Iterator[bytes]:
    """Yields the lines of a pipe until its end, or until no byte comes for SECONDS."""
    rest = b""
    while select.select([reading], [], [], SECONDS)[0]:
        if not (part := os.read(reading, 2**16)):
            return
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
