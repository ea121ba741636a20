"""Kill a process at its n-th file operation, and compare what a continued command leaves with an undisturbed end.

The operations are counted, not timed: a point is the same moment on every machine. A write that is killed has written
the first half of its bytes.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Fields that a clock decides.
TIMED = {"seconds": 0, "environment_seconds": 0, "frames_per_second": 0, "peak_memory_mb": 0}
# Locks, and output for people; the page states the time at which it was written.
UNCOMPARED = ("lock", ".locks", ".sweeps", "log.txt", "index.html")


class Counter:
    """Counts the file operations below `root`, and kills this process before operation `kill_at` (from 1).

    Attributes:
        names: name of every operation so far, in order: rename, write, fsync, open, unlink or mkdir.
    """

    def __init__(self, root: Path, kill_at: int | None = None):
        self.root, self.kill_at = os.fspath(root), kill_at
        self.names: list[str] = []

    def count(self, name: str, half: Callable[[], None] = lambda: None) -> None:
        self.names.append(name)
        if len(self.names) == self.kill_at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def is_below(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(self.root)

    def install(self) -> None:
        """Replace the functions of `os` and `io` in this process, for good."""
        for name, operation in (
            ("rename", "rename"),
            ("replace", "rename"),
            ("unlink", "unlink"),
            ("remove", "unlink"),
            ("rmdir", "unlink"),
            ("mkdir", "mkdir"),
        ):
            setattr(os, name, self._counted(getattr(os, name), operation))
        fsync = os.fsync

        def counted_fsync(descriptor: int) -> None:
            self.count("fsync")
            fsync(descriptor)

        os.fsync = counted_fsync
        io.open = builtins.open = self._opening(io.open)

    def _counted(self, function: Callable, operation: str) -> Callable:
        def counted(path, *args, **kwargs):
            if self.is_below(path) or kwargs.get("dir_fd") is not None:
                self.count(operation)
            return function(path, *args, **kwargs)

        return counted

    def _opening(self, function: Callable) -> Callable:
        def opening(file, mode="r", *args, **kwargs):
            if not self.is_below(file) or not set(mode) & set("wax+"):
                return function(file, mode, *args, **kwargs)
            self.count("open")
            return CountedFile(function(file, mode, *args, **kwargs), self)

        return opening


class CountedFile:
    """A file that is open for writing, whose writes are counted."""

    def __init__(self, file: Any, counter: Counter):
        self._file, self._counter = file, counter

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._counter.count("write", half)
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> CountedFile:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def run_in_a_fork(command: Callable[[], int], root: Path, kill_at: int | None = None) -> tuple[bool, list[str]]:
    """Run a command in a child of this process.

    Args:
        command: returns an exit status.
        root: the folder whose file operations count.
        kill_at: number of the operation before which the child is killed; None for no kill.

    Returns:
        True if the child was killed, and the names of its operations (empty if the child was killed).

    Raises:
        AssertionError: the child ended with another status than 0.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.close(receiver)
            counter = Counter(root, kill_at)
            counter.install()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                status = command()
            os.write(sender, "\n".join(counter.names).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        names = pipe.read().decode().split()
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the command ended with {os.waitstatus_to_exitcode(status)}"
    return killed, names


def contents(root: Path) -> dict[str, Any]:
    """Path below `root` → content of every file, without what a clock decides."""
    files = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not set(relative.parts) & {*UNCOMPARED, "locks"}:
            files[str(relative)] = _content(path)
    return files


def _content(path: Path) -> Any:
    if path.parent.name == "seals":
        seal = json.loads(path.read_bytes())
        return seal | {"rows": len(seal["rows"])}  # the digests are of rows with times
    if path.suffix != ".jsonl":
        return path.read_bytes()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if path.name == "timings.jsonl":
        return {(line["what"], line["provenance"]) for line in lines}
    lines = [{name: TIMED.get(name, value) for name, value in line.items()} for line in lines]
    if path.parent.name == "chunks":  # the last line of an episode counts
        return {line["seed"]: line for line in lines}
    return sorted(lines, key=lambda line: line.get("seed", 0))
