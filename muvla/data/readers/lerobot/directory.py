"""A LeRobotDataset of any version from v2.0 on as a `Source`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from muvla.data.readers.lerobot.cells import read_numbers, read_pictures, read_texts
from muvla.data.readers.lerobot.episodes import ABOUT, Episode, place_in_video, read_episodes
from muvla.data.readers.lerobot.info import Info
from muvla.data.readers.lerobot.links import require_inside
from muvla.data.readers.lerobot.missing import fetch_command
from muvla.data.readers.lerobot.rows import Rows
from muvla.data.readers.lerobot.tasks import INSTRUCTION, read_tasks
from muvla.data.readers.lerobot.videos import VideoFile
from muvla.data.readers.source import Feature, Record, bytes_below, no_feature, read_note
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.errors import MuvlaError
from muvla.utils.tables import get_column

NEAR = 0.25  # of the seconds between frames: a timestamp within is the time of its frame


class LeRobotDirectory:
    """A LeRobotDataset. Opening raises MuvlaError for another folder or version, and contradicting metadata."""

    format = "lerobot"

    def __init__(self, path: Path):
        self.path = path
        self.info = Info(path)
        self.episodes = read_episodes(self.info)
        self._rows = Rows(path)

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.episodes)

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
        """The frame rate. Exports of this project state their conventions in a note: the format requires a rate, also
        where the exported dataset had none."""
        return NOTHING_STATED if read_note(self.path) is not None else Conventions(fps=self.info.fps)

    @property
    def frames(self) -> int:
        return sum(episode.length for episode in self.episodes)

    @cached_property
    def tasks(self) -> dict[int, str]:
        """The instructions by task_index. Raises MuvlaError for a missing or broken file."""
        return read_tasks(self.info)

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or is described wrongly."""
        if path == INSTRUCTION and path not in self.info.features:
            self.tasks  # noqa: B018  the file is read before any episode
            return Feature(path, "text", "string")
        if path == ABOUT and self.episodes[0].about is not None:
            return Feature(path, "text", "string")
        if path not in self.info.features:
            raise no_feature(self.path, path, [*self.info.features, INSTRUCTION])
        return self.info.feature(path)

    def records(self, paths: Iterable[str], numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields episodes with these features; holds one episode and the columns of its data file in memory. Files of
        other episodes and videos of other features are neither needed nor decoded.

        Args:
            paths: the features to read.
            numbers: the episodes to read, from 0 and ascending; None reads all.

        Raises:
            MuvlaError: a file is missing, before the first episode; rows contradict the metadata; pictures cannot be
                decoded; video frames are missing.
        """
        features = [self.feature(path) for path in paths]
        chosen = self.episodes if numbers is None else [self.episodes[number] for number in numbers]
        self._require_files(chosen, features)
        videos: dict[str, VideoFile] = {}
        try:
            for episode in chosen:
                yield self._record(episode, features, videos)
        finally:
            for video in videos.values():
                video.close()

    def _require_files(self, episodes: list[Episode], features: list[Feature]) -> None:
        """Raises MuvlaError if a file of these episodes and features is missing."""
        videos = [feature.path for feature in features if self._is_video(feature)]
        present: set[Path] = set()
        for episode in episodes:
            if episode.file not in present:
                self._rows.require_file(episode)
                present.add(episode.file)
            for path in videos:
                file = place_in_video(self.info, episode, path).file
                if file not in present and not file.exists():
                    raise MuvlaError(
                        str(file),
                        got="no such file",
                        expected=f"the video {path} of episode {episode.number}",
                        remedy=f"{fetch_command(self.path, str(file.relative_to(self.path)))}; or name other cameras "
                        "with --camera, or leave this episode out with --episodes",
                    )
                present.add(file)

    def _is_video(self, feature: Feature) -> bool:
        return feature.content == "image" and self.info.is_video(feature.path)

    def _record(self, episode: Episode, features: list[Feature], videos: dict[str, VideoFile]) -> Record:
        where = f"{self.path}: episode {episode.number} (from 0)"
        names = {feature.path for feature in features if not self._is_video(feature)} - {INSTRUCTION, ABOUT}
        declared = [name for name in (INSTRUCTION, ABOUT) if name in self.info.features]
        more = {"timestamp", "task_index", *declared}
        table = self._rows.read(episode, names | more, where)
        values: dict[str, np.ndarray] = {}
        notes: set[str] = set()
        for feature in features:
            path, at = feature.path, f"{where}: {feature.path}"
            if path == INSTRUCTION and path not in self.info.features:
                numbers = get_column(table, "task_index", where, "integer")
                values[path] = np.array([self.tasks.get(number, "") for number in numbers])
            elif path == ABOUT and path not in self.info.features:
                values[path] = np.array([episode.about or "{}"])
            elif self._is_video(feature):
                values[path] = self._video(path, episode, table, videos, at, notes)
            else:
                values[path] = self._column(table, feature, at)
        return Record(where, values, notes=frozenset(notes))

    def _column(self, table, feature: Feature, where: str) -> np.ndarray:
        if table.column_names.count(feature.path) != 1:
            raise MuvlaError(
                where,
                got="no such column in data/",
                expected="this column, by meta/info.json",
                remedy=f"data/ and meta/ are of different versions: {fetch_command(self.path, '*')}; or name another "
                "feature with --camera, --proprio or --action",
            )
        column = table[feature.path]
        if feature.content == "image":
            return read_pictures(column, self.path, where)
        return read_texts(column, where) if feature.content == "text" else read_numbers(column, feature, where)

    def _video(
        self, path: str, episode: Episode, table, videos: dict[str, VideoFile], where: str, notes: set[str]
    ) -> np.ndarray:
        """Returns the frames of an episode: by the rows' timestamps where these are the videos' times, else one frame
        per row.

        Args:
            path: the feature.
            episode: the episode.
            table: the rows.
            videos: the open video of each feature.
            where: episode and feature, for errors.
            notes: facts about the dataset; the other clock of the rows is added.
        """
        place, interval = place_in_video(self.info, episode, path), 1 / self.info.fps
        if path not in videos or videos[path].path != place.file:
            if path in videos:
                videos.pop(path).close()
            videos[path] = VideoFile(require_inside(self.path, place.file))
        times = np.array(get_column(table, "timestamp", where, "number"), dtype=np.float64)
        grid = np.arange(episode.length) * interval
        off = np.abs(times - grid)
        if off.max() <= NEAR * interval:
            return videos[path].frames(place.start + grid, interval, where)
        frames = videos[path].window(place, episode.length, interval, where)
        if frames is not None:
            notes.add(f"{path}: timestamps of the rows are no multiples of 1/fps; row i got frame i of its episode")
            return frames
        if np.abs(off - off[0]).max() <= NEAR * interval:  # the episode begins later in its video
            return videos[path].frames(place.start + times, interval, where)
        step = int(off.argmax())
        raise MuvlaError(
            f"{where}: timestamp",
            got=f"{times[step]:.3f} s in step {step}; {place.file} has not {episode.length} frames for the episode",
            expected=f"multiples of 1/fps, {interval:.4f} s, or a frame for every row",
            remedy="the rows carry a clock that is not the video's: write frame_index / fps into the column timestamp "
            "where the video has a frame per row, or leave this episode out with --episodes",
        )
