"""MIKASA-Robo's episodes as its collectors write them (mikasa-robo-suite 1.0.0).

A dataset is a folder of `train_data_<number>.npz`, one episode of T steps each:

    rgb (T, h, w, 6) uint8, base camera and wrist camera    proprio (T, 7) float32    action (T, 7) float32
    language_instruction text    episode_length, episode_seed    reward, success, done (T,)
"""

from __future__ import annotations

import contextlib
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from muvla.data.readers.format import Format, by_name
from muvla.data.readers.hdf5 import BEST_COMPRESSION, UNSTORED_BYTES
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Feature, Record, bytes_below, mismatch, no_feature
from muvla.envs.conventions import Conventions
from muvla.errors import MuvlaError
from muvla.utils.content import require_real
from muvla.utils.io import read_json

EPISODE = re.compile(r"train_data_(\d+)\.npz")
BASE, WRIST = "rgb[..., :3]", "rgb[..., 3:]"  # the two features in the array of six channels
FACTS = ("episode_length", "episode_seed")  # of an episode, beside the arrays of its steps
META = "metadata.json"  # in unbatched folders; the collectors by motion planning write none


class MikasaDirectory:
    """A folder of episodes. Opening raises MuvlaError for a folder without episodes, a missing number, or another
    layout."""

    format = "mikasa"

    def __init__(self, path: Path):
        self.path = path
        files = {int(match[1]): file for file in path.glob("*.npz") if (match := EPISODE.fullmatch(file.name))}
        metadata = _read_metadata(path / META)
        count = metadata.num_episodes or max(files, default=-1) + 1
        missing = next((number for number in range(count) if number not in files), None)
        if not files or missing is not None:
            raise MuvlaError(
                str(path),
                got=f"no train_data_{missing or 0}.npz",
                expected=f"{count or 'some'} episodes",
                remedy="copy or collect the missing episodes",
            )
        self.files = [files[number] for number in sorted(files)]
        self.conventions = Conventions(environment=metadata.env_id or None)
        self.arrays: dict[str, tuple[tuple[int, ...], str]] = {}
        self.lengths = []
        for number, file in enumerate(self.files):
            headers = _headers(file)
            self.lengths.append(_count_steps(headers))
            # The first episode states the arrays; a text may be missing there.
            texts = {name: header for name, header in headers.items() if header[1].startswith("<U")}
            self.arrays = headers if number == 0 else texts | self.arrays

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.files)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def origin(self) -> str:
        """Names and sizes."""
        return f"{self.name} (MIKASA-Robo npz, {len(self)} episodes, {bytes_below(self.path)} bytes)"

    @property
    def frames(self) -> int:
        return sum(self.lengths)

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""
        array = "rgb" if path in (BASE, WRIST) else path
        if array not in self.arrays:
            raise no_feature(self.path, path, self.arrays)
        shape, dtype = self.arrays[array]
        if array == "rgb":
            return Feature(path, "image", dtype, (*shape[1:3], shape[3] // 2) if len(shape) == 4 else shape[1:])
        if dtype.startswith("<U"):
            return Feature(path, "text", dtype)
        image = dtype == "uint8" and len(shape) == 4 and shape[3] == 3
        return Feature(path, "image" if image else "tensor", dtype, shape[1:])

    def records(self, paths: Iterable[str], numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields the episodes of these numbers, or all. Raises MuvlaError for a cut file and for wrong lengths."""
        paths = list(paths)
        names = {"rgb" if path in (BASE, WRIST) else path for path in paths}
        for number in range(len(self)) if numbers is None else numbers:
            file = self.files[number]
            arrays = _load(file, {*names, *FACTS})
            values = {path: self._value(arrays, path, file) for path in paths}
            lengths = {name: len(arrays[name]) for name in sorted(names) if name in arrays and arrays[name].ndim}
            length = _number(arrays, "episode_length", file)
            length = self.lengths[number] if length is None else length
            if lengths and set(lengths.values()) != {length}:
                raise mismatch(str(file), f"steps {lengths}", f"{length} steps in each array, by episode_length")
            seed = _number(arrays, "episode_seed", file)
            yield Record(str(file), values, {} if seed is None else {"seed": seed})

    def _value(self, arrays: dict[str, np.ndarray], path: str, file: Path) -> np.ndarray:
        array = "rgb" if path in (BASE, WRIST) else path
        if array not in arrays:
            if self.feature(path).content == "text":
                return np.array([], dtype=np.str_)
            raise mismatch(f"{file}: {path}", "no such array", "this array, as in the first episode")
        value = arrays[array]
        if path not in (BASE, WRIST):
            return value
        if value.ndim != 4 or value.shape[3] != 6 or value.dtype != np.uint8:
            raise mismatch(f"{file}: rgb", f"{value.dtype} of shape {value.shape}", "uint8 of shape (T, h, w, 6)")
        return value[..., :3] if path == BASE else value[..., 3:]


def _count_steps(headers: dict[str, tuple[tuple[int, ...], str]]) -> int:
    """Returns the length of the first axis that most arrays have; an episode has many arrays of steps."""
    lengths = Counter(shape[0] for shape, _ in headers.values() if shape)
    return lengths.most_common(1)[0][0] if lengths else 0


def _number(arrays: dict[str, np.ndarray], name: str, file: Path) -> int | None:
    """Returns an integer that the episode states, or None. Raises MuvlaError for other content."""
    if name not in arrays:
        return None
    value = arrays[name]
    if value.size != 1 or value.dtype.kind not in "iu":
        raise mismatch(f"{file}: {name}", f"{value.dtype} of shape {value.shape}", "one integer")
    return int(value.ravel()[0])


@dataclass(frozen=True)
class Metadata:
    """The entries of metadata.json that the reader uses."""

    num_episodes: int = 0
    env_id: str = ""


def _read_metadata(file: Path) -> Metadata:
    if not file.exists():
        return Metadata()
    data = read_json(file)
    data = data if isinstance(data, dict) else {}
    count, environment = data.get("num_episodes", 0), data.get("env_id", "")
    if type(count) is not int or count < 0 or not isinstance(environment, str):
        raise mismatch(
            str(file),
            f"num_episodes {count!r:.80}, env_id {environment!r:.80}",
            "a number of episodes and the name of the environment",
            "remove the file; the reader then counts the episodes",
        )
    return Metadata(count, environment)


def _load(file: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Reads arrays of an episode; arrays of other names are not needed. Raises MuvlaError as `_headers` does."""
    _headers(file)
    with _reading(file), np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name in names}


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns shape and dtype of every array, without reading values.

    Raises MuvlaError for a cut file, a declared size that the file does not store, and Python objects. The suite's
    folder of whole batches holds Python objects, and reading these could run code of the file.
    """
    headers: dict[str, tuple[tuple[int, ...], str]] = {}
    with _reading(file), zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as array:
                if np.lib.format.read_magic(array) != (1, 0):
                    raise ValueError("a version of npy that MIKASA-Robo does not write")
                shape, _, dtype = np.lib.format.read_array_header_1_0(array)
                if dtype.hasobject:
                    raise ValueError("Python objects")
                size = array.tell() + dtype.itemsize * prod(shape)
            if min(shape, default=0) < 0 or size != member.file_size:
                raise ValueError(f"{member.filename} declares {size} bytes and stores {member.file_size}")
            if size > UNSTORED_BYTES and size > BEST_COMPRESSION * member.compress_size:
                raise ValueError(f"{member.filename} declares {size} bytes and stores {member.compress_size} of them")
            headers[member.filename.removesuffix(".npy")] = shape, dtype.str if dtype.kind == "U" else dtype.name
    return headers


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Names the file in which NumPy or zipfile find damage."""
    require_real(file, "the arrays of one episode")
    try:
        yield
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, MuvlaError):
            raise
        raise MuvlaError(
            str(file),
            got=f"no whole episode ({error})",
            expected="the arrays of one episode, as MIKASA-Robo's collectors write them",
            remedy="compare the file's size with the source's; for a folder of batches, let the suite's collector "
            "finish",
        ) from None


def is_mikasa(path: Path) -> bool:
    """True for a folder of episodes."""
    return path.is_dir() and any(path.glob("train_data_*.npz"))


# Proprio is xyz, roll-pitch-yaw and the sum of the finger positions, as in the environment (μVLA spec 4.4).
FORMAT = Format(
    layout="a folder with train_data_*.npz (MIKASA-Robo)",
    matches=is_mikasa,
    open=MikasaDirectory,
    schemas=by_name(
        Schema(
            name="mikasa",
            cameras=(BASE, WRIST),
            proprio=("proprio",),
            proprio_dim=7,
            action=("action",),
            action_dim=7,
            instruction="language_instruction",
        )
    ),
)
