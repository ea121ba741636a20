"""MIKASA-Robo's episodes as its collectors write them (mikasa-robo-suite 1.0.0).

A dataset is a folder of `train_data_<number>.npz`, one episode of T steps each:

    rgb (T, h, w, 6) uint8, base camera and wrist camera    proprio (T, 7) float32    action (T, 7) float32
    language_instruction text    episode_length, episode_seed    reward, success, done (T,)
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from muvla.data.readers.source import Feature, Record, bytes_below, mismatch, no_feature
from muvla.envs.conventions import NOTHING_STATED
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

EPISODE = re.compile(r"train_data_(\d+)\.npz")
BASE, WRIST = "rgb[..., :3]", "rgb[..., 3:]"  # the two features in the array of six channels
META = "metadata.json"  # in unbatched folders; the collectors by motion planning write none


class MikasaDirectory:
    """A folder of episodes. Opening raises MuvlaError for a folder without episodes, a missing number, or another
    layout."""

    format = "mikasa"
    conventions = NOTHING_STATED  # the format states none

    def __init__(self, path: Path):
        self.path = path
        files = {int(match[1]): file for file in path.glob("*.npz") if (match := EPISODE.fullmatch(file.name))}
        count = read_json(path / META).get("num_episodes", 0) if (path / META).exists() else 0
        count = count or max(files, default=-1) + 1
        missing = [number for number in range(count) if number not in files]
        if not files or missing:
            number = missing[0] if missing else 0
            raise MuvlaError(
                str(path),
                got=f"no train_data_{number}.npz",
                expected=f"{count or 'some'} episodes",
                remedy="copy or collect the missing episodes",
            )
        self.files = [files[number] for number in sorted(files)]
        self.arrays = _headers(self.files[0])
        self.lengths = [_headers(file).get("action", ((0,), ""))[0][0] for file in self.files]

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
        return Feature(path, "text", dtype) if dtype.startswith("<U") else Feature(path, "tensor", dtype, shape[1:])

    def records(self, paths: Iterable[str], skip: int = 0) -> Iterator[Record]:
        """Yields the episodes after the first `skip`, by number. Raises MuvlaError for a cut file and for wrong
        lengths."""
        for file in self.files[skip:]:
            arrays = _load(file)
            values = {}
            for path in paths:
                array = "rgb" if path in (BASE, WRIST) else path
                if array not in arrays:
                    raise mismatch(f"{file}: {path}", "no such array", "this array, as in the first episode")
                value = arrays[array]
                values[path] = value[..., :3] if path == BASE else value[..., 3:] if path == WRIST else value
            lengths = {name: len(value) for name, value in arrays.items() if value.ndim}
            length = int(arrays.get("episode_length", len(arrays["action"])))
            if set(lengths.values()) != {length}:
                raise mismatch(str(file), f"steps {lengths}", f"{length} steps in each array, by episode_length")
            seed = {"seed": int(arrays["episode_seed"])} if "episode_seed" in arrays else {}
            yield Record(str(file), values, seed)


def _load(file: Path) -> dict[str, np.ndarray]:
    """Reads an episode's arrays. Raises MuvlaError for a cut file and for Python objects.

    The suite's folder of whole batches holds Python objects, and reading these could run code of the file.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_episode(file, error) from None


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns shape and dtype of every array, without reading values."""
    headers = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                with archive.open(member) as array:
                    if np.lib.format.read_magic(array) != (1, 0):
                        raise ValueError("a version of npy that MIKASA-Robo does not write")
                    shape, _, dtype = np.lib.format.read_array_header_1_0(array)
                    if dtype.hasobject:
                        raise ValueError("Python objects")
                    headers[member.removesuffix(".npy")] = shape, dtype.str if dtype.kind == "U" else dtype.name
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_episode(file, error) from None
    return headers


def _no_episode(file: Path, error: Exception) -> MuvlaError:
    return MuvlaError(
        str(file),
        got=f"no whole episode ({error})",
        expected="the arrays of one episode, as MIKASA-Robo's collectors write them",
        remedy="copy the file again; for a folder of batches, let the suite's collector finish",
    )
