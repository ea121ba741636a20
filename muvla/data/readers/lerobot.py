"""LeRobotDataset v3: many episodes to a file, numbers in parquet, pictures in parquet (PNG) or in videos.

    meta/info.json                               features, frames per second, where files lie, how many there are
    meta/tasks.parquet                           the instructions, by task_index
    meta/episodes/chunk-000/file-000.parquet     a row per episode: its file and rows, its video file and seconds
    data/chunk-000/file-000.parquet              a row per frame
    videos/<feature>/chunk-000/file-000.mp4      episodes one after the other

Where an episode begins is told by meta/episodes alone; frames of a video are found by their time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.source import Feature, Record, bytes_below, decoded, need, no_feature, require_keys, unlike
from muvla.data.readers.video import VideoFile
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

MAJOR = "v3."
INSTRUCTION = "task"  # a feature that no file declares: the text of each row's task_index
ABOUT = "about"  # of an export from here: a column of meta/episodes, see `muvla.data.writers.lerobot`
EPISODES, TASKS = "meta/episodes", "meta/tasks.parquet"
PLACE = ("chunk_index", "file_index")
# What every dataset of this version tells: of itself, and of each episode.
TOLD = ("features", "total_episodes", "total_frames", "fps", "data_path")
ROW = ("episode_index", "length", "dataset_from_index", *(f"data/{name}" for name in PLACE))


class LeRobotDirectory:
    """Raises MuvlaError for a folder that holds no LeRobotDataset, for one of another version, for a file that is
    missing, and for metadata that disagree."""

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
                remedy="convert it with LeRobot's own script for v2.1 to v3.0",
            )
        require_keys(path / "meta" / "info.json", self.info, TOLD)
        self.declared: dict[str, dict[str, Any]] = self.info["features"]
        self.rows = self._episodes()
        tasks = self._table(path / TASKS).to_pydict()
        texts = next((column for name, column in tasks.items() if name != "task_index"), [])
        self.tasks = dict(zip(tasks.get("task_index", []), texts, strict=False))
        self._require_files()
        self._data: tuple[Path | None, Any] = (None, None)  # the data file that was read last

    def __len__(self) -> int:
        """Episodes."""
        return len(self.rows)

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    @property
    def origin(self) -> str:
        """By names and sizes."""
        return f"{self.name} (LeRobot, {len(self)} episodes, {bytes_below(self.path)} bytes)"

    @property
    def frames(self) -> int:
        return sum(row["length"] for row in self.rows)

    def feature(self, path: str) -> Feature:
        """Raises MuvlaError for one that is not there or cannot be read."""
        if path in (INSTRUCTION, ABOUT):
            if path == ABOUT and ABOUT not in self.rows[0]:
                raise no_feature(self.path, path, self.declared)
            return Feature(path, "text", "string")
        if path not in self.declared:
            raise no_feature(self.path, path, [*self.declared, INSTRUCTION])
        told = self.declared[path]
        kind, shape = told["dtype"], tuple(told["shape"])
        if kind in ("image", "video"):
            names = told.get("names") or ()
            first = (shape[0] == 3 and shape[-1] != 3) or (bool(names) and str(names[0]).startswith("channel"))
            return Feature(path, "image", "uint8", (*shape[1:], shape[0]) if first else shape)
        return Feature(path, "text" if kind == "string" else "tensor", kind, () if shape == (1,) else shape)

    def records(self, paths: Iterable[str], skip: int = 0) -> Iterator[Record]:
        """The episodes but the first `skip`, in order, with these features; one, and the data file that it lies in, are
        in memory at a time.

        Raises MuvlaError for rows that disagree with meta/episodes, for pictures that cannot be decoded, and for a
        video that has no frame where one should be.
        """
        wanted = [self.feature(path) for path in paths]
        videos: dict[str, VideoFile] = {}
        try:
            for number in range(skip, len(self)):
                yield self._record(number, wanted, videos)
        finally:
            for video in videos.values():
                video.close()

    def _record(self, number: int, wanted: list[Feature], videos: dict[str, VideoFile]) -> Record:
        row = self.rows[number]
        where = f"{self.path}: episode {number} (from 0)"
        table = self._frames(number, where)
        values: dict[str, np.ndarray] = {}
        for one in wanted:
            at = f"{where}: {one.path}"
            if one.path == INSTRUCTION:
                values[one.path] = np.array([str(self.tasks.get(i, "")) for i in table["task_index"].to_pylist()])
            elif one.path == ABOUT:
                values[one.path] = np.array([row[ABOUT]])
            elif self.declared[one.path]["dtype"] == "video":
                values[one.path] = self._video(one.path, row, table["timestamp"].to_numpy(), videos, at)
            elif one.path not in table.column_names:
                raise unlike(at, "no such column", "one, as meta/info.json tells")
            elif one.kind == "image":
                values[one.path] = _pictures(table[one.path].to_pylist(), self.path, at)
            else:
                values[one.path] = _numbers(table[one.path].to_pylist(), one, at)
        return Record(where, values)

    def _frames(self, number: int, where: str):
        """The rows of an episode."""
        row = self.rows[number]
        file = self._data_file(row)
        if self._data[0] != file:
            self._data = (None, None)  # two files at once would be twice the memory
            self._data = (file, self._table(file))
        table = self._data[1]
        found = np.flatnonzero(table["episode_index"].to_numpy() == number)
        length, start = row["length"], row["dataset_from_index"]
        if not np.array_equal(table["index"].to_numpy()[found], np.arange(start, start + length)):
            told = f"{length}, of index {start} to {start + length - 1}, as {EPISODES} tells"
            raise unlike(f"{where}: {file}", f"{len(found)} rows of it", told)
        return table.slice(found[0], length)

    def _video(self, path: str, row: dict, timestamps: np.ndarray, videos: dict, where: str) -> np.ndarray:
        file = self._video_file(path, row)
        if path not in videos or videos[path].path != file:
            if path in videos:
                videos.pop(path).close()
            videos[path] = VideoFile(file)
        start = row[f"videos/{path}/from_timestamp"]
        return videos[path].frames(start + timestamps.astype(np.float64), 1 / self.info["fps"], where)

    def _episodes(self) -> list[dict[str, Any]]:
        """The rows of meta/episodes, without the statistics."""
        files = sorted((self.path / EPISODES).glob("*/*.parquet"))
        rows = [
            row for file in files for row in self._table(file, lambda name: not name.startswith("stats/")).to_pylist()
        ]
        for row in rows:
            require_keys(self.path / EPISODES, row, ROW)
        rows.sort(key=lambda row: row["episode_index"])
        frames = sum(row["length"] for row in rows)
        told = self.info["total_episodes"], self.info["total_frames"]
        if not rows or (len(rows), frames) != told or [row["episode_index"] for row in rows] != list(range(len(rows))):
            raise MuvlaError(
                str(self.path / EPISODES),
                got=f"{len(rows)} episodes of {frames} frames",
                expected=f"{told[0]} of {told[1]}, as meta/info.json tells",
                remedy="download what is missing",
            )
        return rows

    def _require_files(self) -> None:
        videos = [path for path, told in self.declared.items() if told["dtype"] == "video"]
        for row in self.rows:
            for file in (self._data_file(row), *(self._video_file(path, row) for path in videos)):
                if not file.exists():
                    raise MuvlaError(
                        str(file),
                        got="no such file",
                        expected=f"the one of episode {row['episode_index']}",
                        remedy="download what is missing",
                    )

    def _data_file(self, row: dict[str, Any]) -> Path:
        place = {name: row[f"data/{name}"] for name in PLACE}
        return self.path / self.info["data_path"].format(**place)

    def _video_file(self, path: str, row: dict[str, Any]) -> Path:
        try:
            place = {name: row[f"videos/{path}/{name}"] for name in PLACE}
        except KeyError as error:
            where = f"{self.path / EPISODES}: episode {row['episode_index']}"
            raise unlike(where, f"no column {error}", f"the place of {path}, as it is a video") from None
        return self.path / self.info["video_path"].format(video_key=path, **place)

    def _table(self, file: Path, wanted=lambda name: True):
        parquet = need("pyarrow.parquet", "to read LeRobot's tables")
        arrow = need("pyarrow", "to read LeRobot's tables")
        try:
            names = [name for name in parquet.read_schema(file).names if wanted(name)]
            return parquet.read_table(file, columns=names)
        except (arrow.ArrowException, OSError) as error:
            raise MuvlaError(
                str(file),
                got=f"no whole parquet file ({error})",
                expected="a table of LeRobot's",
                remedy="download the file again",
            ) from None


def _pictures(cells: list[dict[str, Any] | None], root: Path, where: str) -> np.ndarray:
    """(T, h, w, c) uint8 of cells that hold an encoded image, or the path of one."""
    images = []
    for step, cell in enumerate(cells):
        at, cell = f"{where}, step {step}", cell or {}
        data = cell.get("bytes")
        if data is None:
            file = root / str(cell.get("path"))
            if not file.is_file():
                raise unlike(at, "no picture", "the bytes of a PNG or JPEG image, or the path of one")
            data = file.read_bytes()
        images.append(decoded(data, at))
    if len({image.shape for image in images}) > 1:
        raise unlike(where, "images of several sizes", "one size per episode")
    return np.stack(images)


def _numbers(cells: list, feature: Feature, where: str) -> np.ndarray:
    """(T, …) of the declared shape; an empty cell is NaN."""
    try:
        values = np.array(cells, dtype=np.float64 if feature.dtype.startswith("float") else None)
    except ValueError:
        raise unlike(where, "rows of several lengths", f"shape {feature.shape}") from None
    if values.shape[1:] != feature.shape:
        raise unlike(where, f"shape {values.shape[1:]}", f"shape {feature.shape}, as meta/info.json tells")
    return values.astype(feature.dtype)
