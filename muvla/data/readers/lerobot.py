"""LeRobotDataset v3: many episodes to a file, numbers in parquet, pictures in parquet (PNG) or in videos.

    meta/info.json                               features, frames per second, paths and numbers of files
    meta/tasks.parquet                           the instructions, by task_index
    meta/episodes/chunk-000/file-000.parquet     a row per episode: its file and rows, its video file and seconds
    data/chunk-000/file-000.parquet              a row per frame
    videos/<feature>/chunk-000/file-000.mp4      episodes in a row

Only meta/episodes holds where an episode begins. The reader finds the frames of a video by their time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.source import (
    Feature,
    Record,
    bytes_below,
    decode_image,
    import_package,
    mismatch,
    no_feature,
    require_keys,
)
from muvla.data.readers.video import VideoFile
from muvla.envs.conventions import Conventions
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

MAJOR = "v3."
INSTRUCTION = "task"  # an undeclared feature: the text of each row's task_index
ABOUT = "about"  # a column of meta/episodes in this project's exports, see `muvla.data.writers.lerobot`
EPISODES, TASKS = "meta/episodes", "meta/tasks.parquet"
PLACE = ("chunk_index", "file_index")
# Required keys of info.json, and of each row of meta/episodes.
INFO_KEYS = ("features", "total_episodes", "total_frames", "fps", "data_path")
ROW_KEYS = ("episode_index", "length", "dataset_from_index", *(f"data/{name}" for name in PLACE))


class LeRobotDirectory:
    """A LeRobotDataset. Opening raises MuvlaError for another folder or version, a missing file, or contradicting
    metadata."""

    format = "lerobot"

    def __init__(self, path: Path):
        self.path = path
        self.info: dict[str, Any] = read_json(path / "meta" / "info.json")
        version = str(self.info.get("codebase_version"))
        if not version.startswith(MAJOR):
            raise MuvlaError(
                str(path / "meta" / "info.json"),
                got=f"codebase_version {version}",
                expected=f"{MAJOR}x",
                remedy="convert the dataset with LeRobot's script for v2.1 to v3.0",
            )
        require_keys(path / "meta" / "info.json", self.info, INFO_KEYS)
        self.declared: dict[str, dict[str, Any]] = self.info["features"]
        self.rows = self._episodes()
        tasks = self._table(path / TASKS).to_pydict()
        texts = next((column for name, column in tasks.items() if name != "task_index"), [])
        self.tasks = dict(zip(tasks.get("task_index", []), texts, strict=False))
        self._require_files()
        self._data: tuple[Path | None, Any] = (None, None)  # the last data file and its table

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.rows)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def origin(self) -> str:
        """Names and sizes."""
        return f"{self.name} (LeRobot, {len(self)} episodes, {bytes_below(self.path)} bytes)"

    @property
    def conventions(self) -> Conventions:
        """The frame rate."""
        return Conventions(fps=self.info["fps"])

    @property
    def frames(self) -> int:
        return sum(row["length"] for row in self.rows)

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""
        if path in (INSTRUCTION, ABOUT):
            if path == ABOUT and ABOUT not in self.rows[0]:
                raise no_feature(self.path, path, self.declared)
            return Feature(path, "text", "string")
        if path not in self.declared:
            raise no_feature(self.path, path, [*self.declared, INSTRUCTION])
        declared = self.declared[path]
        dtype, shape = declared["dtype"], tuple(declared["shape"])
        if dtype in ("image", "video"):
            names = declared.get("names") or ()
            first = (shape[0] == 3 and shape[-1] != 3) or (bool(names) and str(names[0]).startswith("channel"))
            return Feature(path, "image", "uint8", (*shape[1:], shape[0]) if first else shape)
        return Feature(path, "text" if dtype == "string" else "tensor", dtype, () if shape == (1,) else shape)

    def records(self, paths: Iterable[str], numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields the episodes of these numbers, or all; holds one episode and its data file in memory.

        Raises MuvlaError for rows that contradict meta/episodes, pictures that cannot be decoded, and missing video
        frames.
        """
        features = [self.feature(path) for path in paths]
        videos: dict[str, VideoFile] = {}
        try:
            for number in range(len(self)) if numbers is None else numbers:
                yield self._record(number, features, videos)
        finally:
            for video in videos.values():
                video.close()

    def _record(self, number: int, features: list[Feature], videos: dict[str, VideoFile]) -> Record:
        row = self.rows[number]
        where = f"{self.path}: episode {number} (from 0)"
        table = self._frames(number, where)
        values: dict[str, np.ndarray] = {}
        for feature in features:
            path, at = feature.path, f"{where}: {feature.path}"
            if path == INSTRUCTION:
                values[path] = np.array([str(self.tasks.get(i, "")) for i in table["task_index"].to_pylist()])
            elif path == ABOUT:
                values[path] = np.array([row[ABOUT]])
            elif self.declared[path]["dtype"] == "video":
                values[path] = self._video(path, row, table["timestamp"].to_numpy(), videos, at)
            elif path not in table.column_names:
                raise mismatch(at, "no such column", "this column, by meta/info.json")
            elif feature.content == "image":
                values[path] = _pictures(table[path].to_pylist(), self.path, at)
            else:
                values[path] = _numbers(table[path].to_pylist(), feature, at)
        return Record(where, values)

    def _frames(self, number: int, where: str):
        """Returns the rows of an episode."""
        row = self.rows[number]
        file = self._data_file(row)
        if self._data[0] != file:
            self._data = (None, None)  # frees the last table: two tables would take twice the memory
            self._data = (file, self._table(file))
        table = self._data[1]
        rows = np.flatnonzero(table["episode_index"].to_numpy() == number)
        length, start = row["length"], row["dataset_from_index"]
        if not np.array_equal(table["index"].to_numpy()[rows], np.arange(start, start + length)):
            expected = f"{length} rows, of index {start} to {start + length - 1}, by {EPISODES}"
            raise mismatch(f"{where}: {file}", f"{len(rows)} rows of the episode", expected)
        return table.slice(rows[0], length)

    def _video(self, path: str, row: dict, timestamps: np.ndarray, videos: dict, where: str) -> np.ndarray:
        file = self._video_file(path, row)
        if path not in videos or videos[path].path != file:
            if path in videos:
                videos.pop(path).close()
            videos[path] = VideoFile(file)
        start = row[f"videos/{path}/from_timestamp"]
        return videos[path].frames(start + timestamps.astype(np.float64), 1 / self.info["fps"], where)

    def _episodes(self) -> list[dict[str, Any]]:
        """Returns the rows of meta/episodes, without the statistics."""
        files = sorted((self.path / EPISODES).glob("*/*.parquet"))
        rows = [
            row for file in files for row in self._table(file, lambda name: not name.startswith("stats/")).to_pylist()
        ]
        for row in rows:
            require_keys(self.path / EPISODES, row, ROW_KEYS)
        rows.sort(key=lambda row: row["episode_index"])
        frames = sum(row["length"] for row in rows)
        totals = self.info["total_episodes"], self.info["total_frames"]
        numbers = [row["episode_index"] for row in rows]
        if not rows or (len(rows), frames) != totals or numbers != list(range(len(rows))):
            raise MuvlaError(
                str(self.path / EPISODES),
                got=f"{len(rows)} episodes of {frames} frames",
                expected=f"{totals[0]} episodes of {totals[1]} frames, by meta/info.json",
                remedy="download the missing files",
            )
        return rows

    def _require_files(self) -> None:
        videos = [path for path, declared in self.declared.items() if declared["dtype"] == "video"]
        for row in self.rows:
            for file in (self._data_file(row), *(self._video_file(path, row) for path in videos)):
                if not file.exists():
                    raise MuvlaError(
                        str(file),
                        got="no such file",
                        expected=f"the file of episode {row['episode_index']}",
                        remedy="download the missing file",
                    )

    def _data_file(self, row: dict[str, Any]) -> Path:
        place = {name: row[f"data/{name}"] for name in PLACE}
        return self.path / self.info["data_path"].format(**place)

    def _video_file(self, path: str, row: dict[str, Any]) -> Path:
        try:
            place = {name: row[f"videos/{path}/{name}"] for name in PLACE}
        except KeyError as error:
            where = f"{self.path / EPISODES}: episode {row['episode_index']}"
            raise mismatch(where, f"no column {error}", f"the place of {path}, as it is a video") from None
        return self.path / self.info["video_path"].format(video_key=path, **place)

    def _table(self, file: Path, wanted=lambda name: True):
        parquet = import_package("pyarrow.parquet", "to read LeRobot's tables")
        arrow = import_package("pyarrow", "to read LeRobot's tables")
        try:
            names = [name for name in parquet.read_schema(file).names if wanted(name)]
            return parquet.read_table(file, columns=names)
        except (arrow.ArrowException, OSError) as error:
            raise MuvlaError(
                str(file),
                got=f"no whole parquet file ({error})",
                expected="a whole parquet file",
                remedy="download the file again",
            ) from None


def _pictures(cells: list[dict[str, Any] | None], root: Path, where: str) -> np.ndarray:
    """Returns (T, h, w, c) uint8 from cells that hold an encoded image or its path."""
    images = []
    for step, cell in enumerate(cells):
        at, cell = f"{where}, step {step}", cell or {}
        data = cell.get("bytes")
        if data is None:
            file = root / str(cell.get("path"))
            if not file.is_file():
                raise mismatch(at, "no picture", "the bytes of a PNG or JPEG image, or the path of one")
            data = file.read_bytes()
        images.append(decode_image(data, at))
    if len({image.shape for image in images}) > 1:
        raise mismatch(where, "images of several sizes", "one size per episode")
    return np.stack(images)


def _numbers(cells: list, feature: Feature, where: str) -> np.ndarray:
    """Returns (T, …) of the declared shape; an empty cell becomes NaN."""
    try:
        values = np.array(cells, dtype=np.float64 if feature.dtype.startswith("float") else None)
    except ValueError:
        raise mismatch(where, "rows of several lengths", f"shape {feature.shape}") from None
    if values.shape[1:] != feature.shape:
        raise mismatch(where, f"shape {values.shape[1:]}", f"shape {feature.shape}, by meta/info.json")
    return values.astype(feature.dtype)
