"""The episodes of a LeRobotDataset: length, file of data, place in the videos; v2's lines and v3's rows alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from muvla.data.readers.lerobot.info import LONGEST, NEW, Info
from muvla.data.readers.lerobot.links import require_inside
from muvla.data.readers.lerobot.missing import fetch_command
from muvla.errors import MuvlaError
from muvla.utils.files import read_text
from muvla.utils.foreign import decode, parse_json
from muvla.utils.tables import get_column, read_table

LINES, TABLES = "meta/episodes.jsonl", "meta/episodes"  # v2, v3
ABOUT = "about"  # a column of meta/episodes in this project's exports, see `muvla.data.writers.lerobot`
PLACE = ("chunk_index", "file_index")
LINES_BYTES = 512 * 2**20  # of episodes.jsonl; a line per episode, longer texts included
Number = Annotated[int, msgspec.Meta(ge=0)]
Length = Annotated[int, msgspec.Meta(ge=1, le=LONGEST)]


@dataclass(frozen=True)
class VideoPlace:
    """The frames of an episode in a video: seconds from `start` to `end`; None is the end of the file."""

    file: Path
    start: float
    end: float | None


@dataclass(frozen=True)
class Episode:
    """An episode by the metadata."""

    number: int
    length: int
    file: Path  # of its rows; v3's metadata may be older than the data and name another file
    start: int | None  # `index` of its first row; v2 does not say
    texts: tuple[str, ...] = ()  # of its tasks
    about: str | None = None
    videos: dict[str, Any] = field(default_factory=dict)  # cells of v3's row about videos, by column


class _Line(msgspec.Struct):
    episode_index: Number
    length: Length
    tasks: Any = None


class _Row(msgspec.Struct):
    episode_index: Number
    length: Length
    dataset_from_index: Number
    chunk: Number
    file: Number
    tasks: Any = None
    about: str | None = None


def read_episodes(info: Info) -> list[Episode]:
    """Returns the episodes, by number.

    Raises MuvlaError for files that are missing or broken, a number that occurs twice, and other totals than info.json
    states.
    """
    where = info.root / (TABLES if info.version == NEW else LINES)
    episodes = list(_from_tables(info) if info.version == NEW else _from_lines(info))
    episodes.sort(key=lambda episode: episode.number)
    for before, episode in itertools.pairwise(episodes):
        if before.number == episode.number:
            raise MuvlaError(
                str(where),
                got=f"episode {episode.number} twice",
                expected="every episode once",
                remedy="two versions of the metadata are mixed: remove the older files of meta/, or "
                + fetch_command(info.root, "meta/*"),
            )
    frames = sum(episode.length for episode in episodes)
    if not episodes or (len(episodes), frames) != (info.episodes, info.frames):
        raise MuvlaError(
            str(where),
            got=f"{len(episodes)} episodes of {frames} frames",
            expected=f"{info.episodes} episodes of {info.frames} frames, by meta/info.json",
            remedy="files of meta/ are missing or older than info.json: "
            f"{fetch_command(info.root, 'meta/*')}; if nothing is missing, write the true totals in meta/info.json",
        )
    return episodes


def _from_lines(info: Info) -> Iterable[Episode]:
    """Yields v2's episodes."""
    file = info.root / LINES
    for number, data in read_lines(file):
        line = decode(data, _Line, f"{file}:{number}")
        place = info.episode_place(line.episode_index)
        yield Episode(line.episode_index, line.length, info.data_file(**place), None, _texts(line.tasks))


def read_lines(file: Path) -> Iterable[tuple[int, Any]]:
    """Yields (number from 1, JSON) of the lines that are not empty. Raises MuvlaError with file and line."""
    for number, text in enumerate(read_text(file, LINES_BYTES).splitlines(), start=1):
        if text.strip():
            yield number, parse_json(text, f"{file}:{number}")


def _from_tables(info: Info) -> Iterable[Episode]:
    """Yields v3's episodes."""
    for file in sorted((info.root / TABLES).glob("*/*.parquet")):
        table = read_table(require_inside(info.root, file), lambda name: not name.startswith("stats/"))
        names = {
            "episode_index": "episode_index",
            "length": "length",
            "dataset_from_index": "dataset_from_index",
            **{name.removesuffix("_index"): f"data/{name}" for name in PLACE},
        }
        columns = {name: get_column(table, column, str(file), "integer") for name, column in names.items()}
        for name in ("tasks", ABOUT):
            if name in table.column_names:
                columns[name] = get_column(table, name, str(file), nulls=True)
        videos = {
            name: get_column(table, name, str(file), nulls=True)
            for name in table.column_names
            if name.startswith("videos/")
        }
        for index in range(table.num_rows):
            cells = {name: column[index] for name, column in columns.items()}
            row = decode(cells, _Row, f"{file}: row {index}")
            yield Episode(
                row.episode_index,
                row.length,
                info.data_file(chunk_index=row.chunk, file_index=row.file),
                row.dataset_from_index,
                _texts(row.tasks),
                row.about,
                {name: column[index] for name, column in videos.items()},
            )


def _texts(tasks: Any) -> tuple[str, ...]:
    """Texts of a cell, which published sets also write as a single text; () for other content."""
    tasks = [tasks] if isinstance(tasks, str) else tasks
    return tuple(task for task in tasks if isinstance(task, str)) if isinstance(tasks, list) else ()


def place_in_video(info: Info, episode: Episode, feature: str) -> VideoPlace:
    """Returns the frames of an episode in the videos of a feature.

    Raises MuvlaError, with episode and feature, where the metadata name no place.
    """
    if info.version != NEW:
        return VideoPlace(info.video_file(feature, **info.episode_place(episode.number)), 0.0, None)
    names = [f"videos/{feature}/{name}" for name in (*PLACE, "from_timestamp", "to_timestamp")]
    chunk, file, start, end = (episode.videos.get(name) for name in names)
    times = [start, start if end is None else end]
    whole = [isinstance(value, int) and value >= 0 for value in (chunk, file)]
    real = [isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1e9 for value in times]
    if not all([*whole, *real]):
        raise MuvlaError(
            f"{info.root / TABLES}: episode {episode.number}: {feature}",
            got=", ".join(f"{name.rpartition('/')[2]} {episode.videos.get(name)}" for name in names[:3]),
            expected="the file and the first second of this camera's video",
            remedy="this camera was not recorded in this episode: name the other cameras with --camera, or leave the "
            "episode out with --episodes",
        )
    end = start + episode.length / info.fps if end is None else end
    return VideoPlace(info.video_file(feature, chunk_index=chunk, file_index=file), float(start), float(end))
