"""What every format of published demonstrations offers to an import.

Legend: T steps, h×w image.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from PIL import Image

from muvla.errors import MuvlaError

ANY = -1  # a dimension that is left open
# Beside the files of a format, where an export from here leaves what the format has no place for: pass_through.
NOTE = "muvla.json"


@dataclass(frozen=True)
class Feature:
    """What a dataset holds under one path; `shape` is that of one step."""

    path: str
    kind: str  # image, text, tensor; else what it is in words, which cannot be read here
    dtype: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Record:
    """One episode by feature: images (T, h, w, c) uint8, tensors (T, …), texts (n,) str; of all steps or of the
    episode."""

    where: str  # for errors: its file and number
    values: dict[str, np.ndarray]
    info: dict[str, Any] = field(default_factory=dict)  # what else the format tells of it, for the store's index
    size: int = 0  # bytes as it is stored, where `frames` is an estimate from them


class Source(Protocol):
    """A dataset as it lies on the disk. Making one raises MuvlaError for a path that holds none and for a file that is
    missing."""

    format: str
    path: Path
    name: str
    origin: str  # what it is, by names and sizes: an import may only be continued from the same
    frames: int  # of all episodes; an estimate where no file tells

    def __len__(self) -> int:
        """Episodes."""

    def feature(self, path: str) -> Feature:
        """Raises MuvlaError for one that is not there or cannot be read."""

    def records(self, paths: Iterable[str], skip: int = 0) -> Iterator[Record]:
        """The episodes but the first `skip`, in order, with these features; one is in memory at a time. Raises
        MuvlaError, with file and episode, for what is damaged or not as the dataset's own description tells."""


def need(package: str, why: str) -> ModuleType:
    """A package of the extra `data`. Raises MuvlaError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MuvlaError(
            package, got=f"no such package ({error})", expected=f"it, {why}", remedy="run `pip install -e '.[data]'`"
        ) from None


def no_feature(path: Path, wanted: str, known: Iterable[str]) -> MuvlaError:
    return MuvlaError(
        f"{path}: feature {wanted}",
        got="no such feature",
        expected=f"an image, a text or numbers among {', '.join(known) or 'none'}",
        remedy="choose the schema that the dataset has, or name its features (--camera, --proprio, --action)",
    )


def unlike(where: str, got: str, expected: str) -> MuvlaError:
    """An episode that is not as its dataset's own description tells."""
    return MuvlaError(
        where, got=got, expected=expected, remedy="download it again, or report it to whoever made the dataset"
    )


def decoded(data: bytes, where: str) -> np.ndarray:
    """(h, w, c) or (h, w) of a PNG or JPEG image."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise unlike(where, f"{type(error).__name__}: {error}", "a whole PNG or JPEG image") from None


def require_keys(where: Path, told: Mapping[str, Any], wanted: Iterable[str]) -> None:
    """Raises MuvlaError for metadata that lack a key."""
    for key in wanted:
        if key not in told:
            raise unlike(str(where), f"no {key!r} among {', '.join(told)}", "it, as in every dataset of this format")


def bytes_below(path: Path) -> int:
    """Of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
