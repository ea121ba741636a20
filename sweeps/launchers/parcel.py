"""A job on its way to a process that does not inherit this process: a rank, a node of a cluster."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

from sweeps.launchers.base import Job


@dataclass(frozen=True)
class Parcel:
    """A pickled job with what its unpickling needs.

    Attributes:
        content: the pickled job.
        path: `sys.path` of the process that made the job; the study's project may define classes that the job holds.
        folder: working directory of that process; a cell may start from a checkpoint at a relative path.
    """

    content: bytes
    path: tuple[str, ...]
    folder: str


def dump(value: Any) -> bytes:
    """A value as multiprocessing sends values between processes."""
    return bytes(ForkingPickler.dumps(value))


def load(content: bytes) -> Any:
    """A value that `dump` of another process of this sweep has written; never of a stranger."""
    return ForkingPickler.loads(content)


def pack(job: Job) -> Parcel:
    return Parcel(dump(job), tuple(os.path.abspath(place) for place in sys.path), os.getcwd())


def unpack(parcel: Parcel) -> Job:
    """The job, in a process that from now on has the maker's import path and working directory."""
    sys.path += [place for place in parcel.path if place not in sys.path]
    os.chdir(parcel.folder)
    return load(parcel.content)
