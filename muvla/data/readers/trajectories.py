"""HDF5 files with a group per episode and an array per feature: the shared part of ManiSkill's and robomimic's readers.

Legend: T steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.apart import read_texts
from muvla.data.readers.hdf5 import find_node, list_features, read_array
from muvla.data.readers.source import Feature, Record, mismatch, no_feature
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.utils.hdf5 import open_hdf5

OBSERVATION = "obs/"


@dataclass
class Trajectory:
    """One episode: its group, its number of steps by another file, its texts by name, and facts for the index."""

    group: str
    steps: int | None = None
    texts: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


class TrajectoryFile:
    """The episodes of one HDF5 file. Features are the paths in an episode's group; those below `obs` omit `obs/`.

    Attributes that are texts are features too, by their names.
    """

    format: str
    conventions: Conventions = NOTHING_STATED
    observations_after_the_last_action = 0  # rows of an observation beyond the actions
    actions = "actions"

    def __init__(self, path: Path, episodes: list[Trajectory]):
        """Opens the file.

        Raises MuvlaError for a cut file, a missing episode, and an episode that is a link.
        """
        self.path, self.episodes = path, episodes
        self._steps: list[int] = []
        self._places: dict[str, str] = {}  # feature → path in an episode's group
        all_texts = read_texts(path, [episode.group for episode in episodes])
        with open_hdf5(path) as file:
            for number, (episode, texts) in enumerate(zip(episodes, all_texts, strict=True)):
                group = self._group(file, episode)
                episode.texts |= texts
                if number == 0:
                    self.features = self._features(group, episode)
                self._steps.append(episode.steps or self._count(group))
        self._declare_texts()

    def _declare_texts(self) -> None:
        """Makes features of the episodes' texts."""
        for episode in self.episodes:
            for name in episode.texts:
                self.features.setdefault(name, Feature(name, "text", "string"))

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.episodes)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.stem

    @property
    def frames(self) -> int:
        return sum(self._steps)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The features that are images, in the file's order.

        Raises MuvlaError if an episode has other cameras than the first, or if a link may be a camera.
        """
        cameras = self._cameras(self.features)
        with open_hdf5(self.path) as file:
            for episode in self.episodes:
                features = self._features(self._group(file, episode), episode)
                for path in sorted({*self._cameras(features)} ^ {*cameras}):
                    got = "no such camera" if path in cameras else "a camera that the first episode lacks"
                    raise mismatch(
                        f"{self._where(episode)}: {path}",
                        got,
                        f"the first episode's cameras, {', '.join(cameras)}",
                        "name the cameras that every episode has with --camera, or leave the episode out with "
                        "--episodes",
                    )
        return cameras

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""
        if path not in self.features:
            readable = [name for name, f in self.features.items() if f.content in ("image", "tensor", "text")]
            raise no_feature(self.path, path, readable)
        return self.features[path]

    def records(self, paths: Iterable[str], numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields the episodes of these numbers, or all. Raises MuvlaError for damage, links and wrong lengths."""
        paths = list(paths)
        with open_hdf5(self.path) as file:
            for number in range(len(self)) if numbers is None else numbers:
                episode = self.episodes[number]
                group, where = self._group(file, episode), self._where(episode)
                values = {path: self._read(group, episode, path, self._steps[number], where) for path in paths}
                yield Record(where, values, dict(episode.info))

    def _read(self, group: Any, episode: Trajectory, path: str, steps: int, where: str) -> np.ndarray:
        """Returns the values of a feature in one episode, the first `steps` rows of an array of steps."""
        if path in episode.texts:
            return np.array([episode.texts[path]])
        place = self._places.get(path, path)
        if self.features[path].content == "text":
            missing = find_node(group, place, where) is None
            return np.array([], dtype=np.str_) if missing else read_array(group, place, where)
        array = read_array(group, place, where)
        expected = steps + (self.observations_after_the_last_action if place.startswith(OBSERVATION) else 0)
        if array.ndim == 0 or len(array) != expected:
            got = f"{len(array)} rows" if array.ndim else "one number"
            raise mismatch(f"{where}: {path}", got, f"{expected} rows")
        return array[:steps]

    def _features(self, group: Any, episode: Trajectory) -> dict[str, Feature]:
        listed = list_features(group, self._where(episode))
        features = {}
        for place, feature in listed.items():
            short = place.removeprefix(OBSERVATION)
            name = place if short != place and short in listed else short
            self._places.setdefault(name, place)
            features[name] = Feature(name, self._content(name, feature), feature.dtype, feature.shape)
        return features

    def _content(self, path: str, feature: Feature) -> str:
        return feature.content

    def _cameras(self, features: dict[str, Feature]) -> tuple[str, ...]:
        """Returns the images. Raises MuvlaError for a link in the place of a camera or of all observations."""
        for path, feature in features.items():
            if "link to" in feature.content and self._may_be_camera(path):
                raise mismatch(
                    f"{self.path}: {path}",
                    feature.content,
                    "a camera in the file itself",
                    "name the cameras to read with --camera, or copy the linked data into the file with `h5copy`",
                )
        return tuple(path for path, feature in features.items() if feature.content == "image")

    def _may_be_camera(self, path: str) -> bool:
        return True

    def _count(self, group: Any) -> int:
        """Returns the rows of the actions; 0 where the actions are no array, which the schema's check refuses."""
        actions = find_node(group, self.actions, str(self.path))
        return len(actions) if getattr(actions, "shape", ()) else 0

    def _group(self, file: Any, episode: Trajectory) -> Any:
        group = find_node(file, episode.group, str(self.path))
        if not hasattr(group, "keys"):
            raise mismatch(self._where(episode), f"no group {episode.group}", "a group of this name")
        return group

    def _where(self, episode: Trajectory) -> str:
        return f"{self.path}: {episode.group}"
