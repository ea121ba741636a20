"""MIKASA-Robo's own episodes, as its collectors leave them (mikasa-robo-suite 1.0.0): a folder of
`train_data_<number>.npz`, one episode each, of T steps.

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

from muvla.data.readers.source import Feature, Record, bytes_below, no_feature, unlike
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

EPISODE = re.compile(r"train_data_(\d+)\.npz")
BASE, WRIST = "rgb[..., :3]", "rgb[..., 3:]"  # the features that the one array of six channels is
META = "metadata.json"  # that of an unbatched folder; the collectors by motion planning write none


class MikasaDirectory:
    """Raises MuvlaError for a folder without episodes, for a number that is missing, and for another layout."""

    format = "mikasa"

    def __init__(self, path: Path):
        self.path = path
        found = {int(match[1]): file for file in path.glob("*.npz") if (match := EPISODE.fullmatch(file.name))}
        told = read_json(path / META).get("num_episodes", 0) if (path / META).exists() else 0
        told = told or max(found, default=-1) + 1
        missing = [number for number in range(told) if number not in found]
        if not found or missing:
            number = missing[0] if missing else 0
            raise MuvlaError(
                str(path),
                got=f"no train_data_{number}.npz",
                expected=f"{told or 'some'} episodes",
                remedy="copy or collect what is missing",
            )
        self.files = [found[number] for number in sorted(found)]
        self.arrays = _headers(self.files[0])
        self.lengths = [_headers(file).get("action", ((0,), ""))[0][0] for file in self.files]

    def __len__(self) -> int:
        """Episodes."""
        return len(self.files)

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    @property
    def origin(self) -> str:
        """By names and sizes."""
        return f"{self.name} (MIKASA-Robo npz, {len(self)} episodes, {bytes_below(self.path)} bytes)"

    @property
    def frames(self) -> int:
        return sum(self.lengths)

    def feature(self, path: str) -> Feature:
        """Raises MuvlaError for one that is not there or cannot be read."""
        array = "rgb" if path in (BASE, WRIST) else path
        if array not in self.arrays:
            raise no_feature(self.path, path, self.arrays)
        shape, dtype = self.arrays[array]
        if array == "rgb":
            return Feature(path, "image", dtype, (*shape[1:3], shape[3] // 2) if len(shape) == 4 else shape[1:])
        return Feature(path, "text", dtype) if dtype.startswith("<U") else Feature(path, "tensor", dtype, shape[1:])

    def records(self, paths: Iterable[str], skip: int = 0) -> Iterator[Record]:
        """The episodes but the first `skip`, in order of their numbers; raises MuvlaError for a file that is cut, and
        for one whose arrays are of another length than it tells."""
        for file in self.files[skip:]:
            arrays = _load(file)
            values = {}
            for path in paths:
                array = "rgb" if path in (BASE, WRIST) else path
                if array not in arrays:
                    raise unlike(f"{file}: {path}", "no such array", "one, as in the first episode")
                value = arrays[array]
                values[path] = value[..., :3] if path == BASE else value[..., 3:] if path == WRIST else value
            lengths = {name: len(value) for name, value in arrays.items() if value.ndim}
            told = int(arrays.get("episode_length", len(arrays["action"])))
            if set(lengths.values()) != {told}:
                raise unlike(str(file), f"steps {lengths}", f"{told} of each, as episode_length tells")
            seed = {"seed": int(arrays["episode_seed"])} if "episode_seed" in arrays else {}
            yield Record(str(file), values, seed)


def _load(file: Path) -> dict[str, np.ndarray]:
    """Raises MuvlaError for a file that is cut, and for one of Python objects: those of the folder of whole batches,
    which nothing reads that must not run what a file says."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_episode(file, error) from None


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array, without reading them."""
    headers = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                with archive.open(member) as array:
                    if np.lib.format.read_magic(array) != (1, 0):
                        raise ValueError("a version of npy that no array of an episode has")
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
        expected="arrays of one episode, as MIKASA-Robo's collectors leave them",
        remedy="copy the file again; or, of a folder of batches, let the suite's collector finish",
    )
