"""MIKASA-Robo's episodes as its collectors write them (mikasa-robo-suite 1.0.0).

A dataset is a folder of `train_data_<number>.npz`, one episode of T steps each:

    rgb (T, h, w, 6) uint8, base camera and wrist camera    proprio (T, 7) float32    action (T, 7) float32
    language_instruction text    episode_length, episode_seed    reward, success, done (T,)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from muvla.data.readers.format import Format, by_name
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Feature, Record, bytes_below, mismatch, no_feature
from muvla.envs.conventions import Conventions
from muvla.errors import MuvlaError, located
from muvla.utils.arrays import read_npz, read_npz_headers
from muvla.utils.foreign import read_model

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
        metadata = read_model(path / META, Metadata) if (path / META).exists() else Metadata()
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
        with located(path / META):
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
            arrays = read_npz(file, {*names, *FACTS})
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


class Metadata(msgspec.Struct):
    """The entries of metadata.json that the reader uses."""

    num_episodes: Annotated[int, msgspec.Meta(ge=0)] = 0
    env_id: str = ""


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns shape and dtype of every array, without reading values.

    The suite's folder of whole batches holds Python objects, which are refused: reading these could run code.
    """
    headers = read_npz_headers(file)
    return {name: (shape, dtype.str if dtype.kind == "U" else dtype.name) for name, (shape, dtype) in headers.items()}


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
