"""RoboMME's HDF5 (`record_dataset_<EnvID>.h5`): a group per episode, and a group per step in it.

    episode_<i>/setup/seed, difficulty, task_goal (texts of one meaning; the first is the instruction)
    episode_<i>/timestep_<k>/obs/front_rgb, wrist_rgb (h, w, 3) uint8, joint_state (7), eef_state (6), gripper_state (2)
    episode_<i>/timestep_<k>/action/joint_action (8), eef_action (7), waypoint_action (7)
    episode_<i>/timestep_<k>/info/is_video_demo

Features are the paths in a step's group, and `phase`. Steps with `is_video_demo` were shown before the execution: their
phase is the cue, and that of all others the decision. The simulator applied every recorded action.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.apart import read_texts
from muvla.data.readers.format import Format, by_name
from muvla.data.readers.hdf5 import damage, find_node, get_names, is_text, list_names, read_array
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Feature, Record, mismatch, no_feature
from muvla.envs.conventions import Conventions
from muvla.envs.phases import Phase
from muvla.utils.hdf5 import open_hdf5

EPISODE, STEP = re.compile(r"episode_(\d{1,9})"), re.compile(r"timestep_(\d{1,9})")
FILE = re.compile(r"record_dataset_(\w+)\.(?:h5|hdf5)")
GOAL, PHASE, VIDEO = "setup/task_goal", "phase", "info/is_video_demo"


class RoboMmeFile:
    """A file of episodes, by number. Opening raises MuvlaError for another or damaged file."""

    format = "robomme"
    cameras: tuple[str, ...] = ()  # every schema names its cameras

    def __init__(self, path: Path):
        self.path = path
        with open_hdf5(path) as file:
            self.groups = _numbered(file, EPISODE)
            if not self.groups:
                raise mismatch(
                    str(path),
                    "no episode",
                    "groups episode_<number>",
                    "pass a file record_dataset_<EnvID>.h5 of RoboMME; `h5ls FILE` lists what this file holds",
                )
            self.features = self._features(file)
        self.goals = [texts.get(GOAL) for texts in read_texts(path, self.groups, (GOAL,))]

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.groups)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.stem

    @property
    def origin(self) -> str:
        """Names and sizes."""
        return f"{self.name} (RoboMME, {len(self)} episodes, {self.path.stat().st_size} bytes)"

    @property
    def conventions(self) -> Conventions:
        """The environment, by the name that RoboMME gives its files."""
        match = FILE.fullmatch(self.path.name)
        return Conventions(environment=match[1] if match else None)

    @cached_property
    def frames(self) -> int:
        with open_hdf5(self.path) as file:
            return sum(len(_numbered(self._group(file, name), STEP)) for name in self.groups)

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""
        if path not in self.features:
            raise no_feature(self.path, path, self.features)
        return self.features[path]

    def records(self, paths: Iterable[str], numbers: Sequence[int] | None = None) -> Iterator[Record]:
        """Yields the episodes of these numbers, or all. Raises MuvlaError for damage and missing arrays."""
        paths = list(paths)
        with open_hdf5(self.path) as file:
            for number in range(len(self)) if numbers is None else numbers:
                name = self.groups[number]
                yield self._record(self._group(file, name), paths, self.goals[number], f"{self.path}: {name}")

    def _record(self, group: Any, paths: list[str], goal: str | None, where: str) -> Record:
        steps = _numbered(group, STEP)
        if not steps:
            raise mismatch(where, "no step", "groups timestep_<number>")
        shown = self._shown(group, steps, where)
        values: dict[str, np.ndarray] = {}
        for path in paths:
            if path == PHASE:
                values[path] = np.where(shown, int(Phase.CUE), int(Phase.DECISION))
            elif path == GOAL:
                values[path] = np.array([] if goal is None else [goal], dtype=np.str_)
            else:
                values[path] = _stack([read_array(group, f"{step}/{path}", where) for step in steps], path, where)
        seed = find_node(group, "setup/seed", where)
        info = {} if seed is None else {"seed": int(np.ravel(read_array(group, "setup/seed", where))[0])}
        cue = int(shown.sum())
        if shown[:cue].all():  # a video that is shown in the middle of an execution has no end of the cue
            info |= {"cue_length": cue, "delay_length": 0}
        return Record(where, values, info)

    def _shown(self, group: Any, steps: list[str], where: str) -> np.ndarray:
        """Returns (T,) bool, True for the steps of the conditioning video."""
        flags = [
            find_node(group, f"{step}/{VIDEO}", where) is not None
            and bool(np.ravel(read_array(group, f"{step}/{VIDEO}", where))[:1].any())
            for step in steps
        ]
        return np.array(flags, dtype=bool)

    def _features(self, file: Any) -> dict[str, Feature]:
        """Returns the features of the first step of the first episode; all others must have the same."""
        group, where = self._group(file, self.groups[0]), f"{self.path}: {self.groups[0]}"
        features = {PHASE: Feature(PHASE, "tensor", "int64", ()), GOAL: Feature(GOAL, "text", "string")}
        first = next(iter(_numbered(group, STEP)), None)
        for part in ("obs", "action", "info"):
            node = None if first is None else find_node(group, f"{first}/{part}", where)
            for name in list_names(node, f"{where}: {part}"):
                with damage(f"{where}: {part}/{name}"):
                    array = find_node(node, name, f"{where}: {part}")
                    if hasattr(array, "shape"):
                        features[f"{part}/{name}"] = _describe(f"{part}/{name}", array)
        return features

    def _group(self, file: Any, name: str) -> Any:
        group = find_node(file, name, str(self.path))
        if not hasattr(group, "keys"):
            raise mismatch(f"{self.path}: {name}", "an array", "a group with steps")
        return group


def _describe(path: str, array: Any) -> Feature:
    if is_text(array.dtype):
        return Feature(path, "text", "string")
    if array.dtype.kind not in "fiub":
        return Feature(path, f"values of dtype {array.dtype}")
    image = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
    return Feature(path, "image" if image else "tensor", array.dtype.name, tuple(array.shape))


def _numbered(group: Any, pattern: re.Pattern[str]) -> list[str]:
    """Returns the names in a group that match, by their numbers."""
    names = list_names(group, str(group.name))
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    return [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]


def _stack(rows: list[np.ndarray], path: str, where: str) -> np.ndarray:
    """Returns (T, …) from the values of all steps."""
    if len({row.shape for row in rows}) > 1:
        raise mismatch(f"{where}: {path}", "steps of several shapes", "one shape for all steps")
    return np.stack(rows)


def is_robomme(path: Path) -> bool:
    """True for an HDF5 file of numbered episodes with numbered steps."""
    episode = next((name for name in get_names(path) if EPISODE.fullmatch(name)), None)
    return episode is not None and any(STEP.fullmatch(name) for name in get_names(path, episode))


def _schema(name: str, action: str, state: str, size: int, conventions: Conventions) -> Schema:
    return Schema(
        name=name,
        cameras=("obs/front_rgb", "obs/wrist_rgb"),
        proprio=(f"obs/{state}", "obs/gripper_state"),
        proprio_dim=None,
        action=(f"action/{action}",),
        action_dim=size,
        instruction=GOAL,
        executed_as_recorded=True,
        phase=PHASE,
        pass_through=(size - 1,),
        conventions=conventions,
    )


# Both actions are absolute, and their last number is the gripper's: -1 closes, 1 opens.
JOINTS = Conventions(action="absolute", frame="joints", gripper="positive_opens", units="metric")
HAND = Conventions(action="absolute", frame="base", gripper="positive_opens", units="metric")
FORMAT = Format(
    layout="a file record_dataset_<EnvID>.h5 (RoboMME)",
    matches=is_robomme,
    open=RoboMmeFile,
    schemas=by_name(
        _schema("robomme", "joint_action", "joint_state", 8, JOINTS),
        _schema("robomme-eef", "eef_action", "eef_state", 7, HAND),
    ),
    suggest=lambda source: "robomme",
)
