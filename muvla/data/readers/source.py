"""The interface of every format of published demonstrations, and its errors.

Legend: T steps, h×w image.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from PIL import Image

from muvla.envs.conventions import NOTHING_STATED, Conventions, read_conventions
from muvla.errors import MuvlaError
from muvla.utils.foreign import read_model

ANY = -1  # a dimension of any size
# Beside the files of an export of this project: pass_through and conventions, which no format has a place for.
NOTE = "muvla.json"
BROKEN_IMAGE = (struct.error, zlib.error, IndexError, KeyError, TypeError, OverflowError, EOFError)  # of Pillow
MOST_PIXELS = 2**24  # of a picture or video frame, 4096×4096: a small file can claim more than the memory holds
OTHER_EPISODES = "report the contradiction to the dataset's authors, or leave the episode out with --episodes"


@dataclass(frozen=True)
class Feature:
    """The data under one path of a dataset; `shape` is the shape of one step. `names` has a word for each number of a
    step, where the files have one."""

    path: str
    content: str  # image, text, tensor; or a description of content that cannot be read
    dtype: str = ""
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One episode by feature: images (T, h, w, c) uint8, tensors (T, …), texts (n,) str, per step or per episode."""

    where: str  # file and number, for errors
    values: dict[str, np.ndarray]
    info: dict[str, Any] = field(default_factory=dict)  # further facts about the episode, for the store's index
    size: int = 0  # stored bytes, where the source estimates `frames` from bytes
    notes: frozenset[str] = frozenset()  # facts about the dataset that its user must know


class Source(Protocol):
    """A dataset on the disk. Opening raises MuvlaError if the path holds no dataset of the format or a file is
    missing."""

    format: str
    path: Path
    name: str
    origin: str  # names and sizes; an interrupted import continues only from the same origin
    frames: int  # of all episodes; an estimate where no file holds the number
    conventions: Conventions  # meaning of the actions as stored in the files

    def __len__(self) -> int:
        """Returns the number of episodes."""

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""

    def records(self, paths: Iterable[str], numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields episodes with these features; holds one episode in memory.

        An episode without a text gives an empty array for a text feature.

        Args:
            paths: the features to read; no other feature is needed.
            numbers: the episodes to read, from 0 and ascending; None reads all.

        Raises:
            MuvlaError: with file and episode, for damage and for a contradiction to the dataset's description.
        """


@dataclass(frozen=True)
class Note:
    """The facts of an export of this project that its format has no place for."""

    pass_through: tuple[int, ...] = ()
    conventions: Conventions = NOTHING_STATED


def read_note(path: Path) -> Note | None:
    """Returns the note beside an export's files; None for a dataset of another origin.

    Raises MuvlaError for a note that no export of this project writes.
    """
    file = path / NOTE
    if not file.exists():
        return None
    note = read_model(file, _NoteFile)
    return Note(tuple(note.pass_through), read_conventions(note.conventions, f"{file}: conventions"))


class _NoteFile(msgspec.Struct):
    pass_through: list[Annotated[int, msgspec.Meta(ge=0)]] = []
    conventions: dict[str, Any] = {}


def no_feature(path: Path, feature: str, features: Iterable[str]) -> MuvlaError:
    """Returns the error for a feature that the dataset lacks."""
    return MuvlaError(
        f"{path}: feature {feature}",
        got="no such feature",
        expected=f"an image, a text or numbers among {', '.join(features) or 'none'}",
        remedy="choose the dataset's schema with --schema, or name its features with --camera, --proprio, --action and "
        "--instruction-feature",
    )


def mismatch(where: str, got: str, expected: str, remedy: str = OTHER_EPISODES) -> MuvlaError:
    """Returns the error for an episode that contradicts its dataset's description.

    Args:
        where: file, episode and feature.
        got: the content.
        expected: the content by the description.
        remedy: a fact or a command that helps.
    """
    return MuvlaError(
        where,
        got=got,
        expected=expected,
        remedy=remedy,
    )


def decode_image(data: bytes, where: str) -> np.ndarray:
    """Returns (h, w, c) or (h, w) pixels of a PNG or JPEG image; colours of a palette are looked up.

    Raises MuvlaError for damage, and for more than MOST_PIXELS, before a pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height <= MOST_PIXELS:
                    return np.asarray(image.convert("RGB") if image.mode == "P" else image)
                size = f"{image.width}×{image.height} pixels"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, *BROKEN_IMAGE) as error:
        raise mismatch(where, f"{type(error).__name__}: {error}", "a whole PNG or JPEG image") from None
    raise mismatch(where, size, f"at most {MOST_PIXELS} pixels in a picture")


def require_keys(where: Path, metadata: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raises MuvlaError if the metadata lack a key."""
    for key in keys:
        if key not in metadata:
            raise mismatch(str(where), f"no {key!r} among {', '.join(metadata)}", f"{key!r}, as the format requires")


def bytes_below(path: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
