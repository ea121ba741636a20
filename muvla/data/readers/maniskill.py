"""ManiSkill trajectories (mani_skill 3.0.1, its RecordEpisode): `NAME.h5`, with `NAME.json` beside it.

    traj_<episode_id>/actions (T, A) float32
    traj_<episode_id>/obs/sensor_data/<camera>/rgb (T+1, h, w, 3) uint8    no action follows the last image
    traj_<episode_id>/obs/agent/qpos (T+1, …) float32, obs/extra/…

Features are the paths below `obs`, and `actions`. No file holds an instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.source import Feature, Record, import_package, mismatch, no_feature, require_keys
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

ACTIONS, INSTRUCTION = "actions", "instruction"


class ManiSkillFile:
    """A file of trajectories, without the episodes that the json marks as failed.

    Opening raises MuvlaError for a missing or damaged file, a file without images, and a missing instruction.
    """

    format = "maniskill"

    def __init__(self, path: Path, instruction: str | None):
        self.path = path
        if not (instruction or "").strip():
            raise MuvlaError(
                "--instruction",
                got=instruction,
                expected="the task's sentence, because these files have no text",
                remedy="pass --instruction with the task's sentence",
            )
        self.instruction = instruction
        beside = path.with_suffix(".json")
        listed: list[dict[str, Any]] = read_json(beside).get("episodes", [])
        for episode in listed:
            require_keys(beside, episode, ("episode_id", "elapsed_steps"))
        self.episodes = [episode for episode in listed if episode.get("success") is not False]
        self.failed = len(listed) - len(self.episodes)
        self._conventions = _read_conventions(beside)
        if not self.episodes:
            raise mismatch(str(beside), f"{self.failed} episodes, all failed", "successful episodes")
        self._h5py = import_package("h5py", "to read ManiSkill's trajectories")
        with self._open() as file:
            missing = [e["episode_id"] for e in self.episodes if f"traj_{e['episode_id']}" not in file]
            if missing:
                where = f"{path}: episode {missing[0]}"
                raise mismatch(where, f"no traj_{missing[0]}", f"{len(listed)} episodes, by the json")
            self.features = self._features(file[f"traj_{self.episodes[0]['episode_id']}"])
        if not self.cameras:
            raise MuvlaError(
                str(path),
                got="trajectories without images",
                expected="obs/sensor_data/<camera>/rgb",
                remedy="record the images with `python -m mani_skill.trajectory.replay_trajectory --traj-path "
                f"{path} --obs-mode rgb --save-traj`, and import the file that it writes",
            )

    def __len__(self) -> int:
        """Returns the number of episodes."""
        return len(self.episodes)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name.removesuffix(".h5")

    @property
    def origin(self) -> str:
        """Names and sizes."""
        content = f"{len(self)} episodes, {self.failed} failed ones left out, {self.path.stat().st_size} bytes"
        return f"{self.name} (ManiSkill, {content}), instruction {self.instruction!r}"

    @property
    def conventions(self) -> Conventions:
        """The environment, the control mode and what its name says, by the json."""
        return self._conventions

    @property
    def frames(self) -> int:
        return sum(episode["elapsed_steps"] for episode in self.episodes)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The features that are images, in the file's order."""
        return tuple(path for path, feature in self.features.items() if feature.content == "image")

    def feature(self, path: str) -> Feature:
        """Returns a feature. Raises MuvlaError if the feature does not exist or cannot be read."""
        if path not in self.features:
            raise no_feature(self.path, path, self.features)
        return self.features[path]

    def records(self, paths: Iterable[str], skip: int = 0) -> Iterator[Record]:
        """Yields the episodes after the first `skip`, in the json's order. Raises MuvlaError for damage and for wrong
        lengths."""
        paths = list(paths)
        with self._open() as file:
            for episode in self.episodes[skip:]:
                where = f"{self.path}: traj_{episode['episode_id']}"
                values = self._values(file[f"traj_{episode['episode_id']}"], paths, episode["elapsed_steps"], where)
                seed = episode.get("episode_seed")
                yield Record(where, values, {} if seed is None else {"seed": int(np.ravel(seed)[0])})

    def _values(self, group, paths: list[str], steps: int, where: str) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for path in paths:
            if path == INSTRUCTION:
                values[path] = np.array([self.instruction])
                continue
            try:
                array = group[path if path == ACTIONS else f"obs/{path}"][()]
            except KeyError:
                raise mismatch(f"{where}: {path}", "no such array", "this array, as in the first episode") from None
            except OSError as error:
                raise mismatch(f"{where}: {path}", f"damage ({error})", "whole arrays") from None
            expected = steps if path == ACTIONS else steps + 1
            if len(array) != expected:
                raise mismatch(f"{where}: {path}", f"{len(array)} rows", f"{expected} rows, by the json")
            values[path] = array[:steps]
        return values

    def _features(self, group) -> dict[str, Feature]:
        """Returns the features of the first episode; all others must have the same."""
        features = {INSTRUCTION: Feature(INSTRUCTION, "text", "string")}

        def add(path: str, node) -> None:
            if isinstance(node, self._h5py.Dataset):
                content = "image" if path.startswith("sensor_data/") and path.endswith("/rgb") else "tensor"
                features[path] = Feature(path, content, node.dtype.name, node.shape[1:])

        add(ACTIONS, group.get(ACTIONS))
        if isinstance(group.get("obs"), self._h5py.Group):
            group["obs"].visititems(add)
        return features

    def _open(self):
        try:
            return self._h5py.File(self.path, "r")
        except OSError as error:
            raise MuvlaError(
                str(self.path),
                got=f"no whole HDF5 file ({error})",
                expected="a whole HDF5 file of ManiSkill trajectories",
                remedy="copy or download the file again",
            ) from None


def _read_conventions(beside: Path) -> Conventions:
    """Returns what the json states of the actions. Raises MuvlaError where its episodes have several control modes."""
    data = read_json(beside)
    env = data.get("env_info") or {}
    options = env.get("env_kwargs") or {}
    modes = {episode["control_mode"] for episode in data["episodes"] if episode.get("control_mode")}
    modes |= {options["control_mode"]} if options.get("control_mode") else set()
    if len(modes) > 1:
        raise MuvlaError(
            f"{beside}: control_mode",
            got=f"several, {', '.join(sorted(map(str, modes)))}",
            expected="one control mode for all actions",
            remedy="replay the trajectories with one control mode: `python -m mani_skill.trajectory.replay_trajectory "
            f"--traj-path {beside.with_suffix('.h5')} --obs-mode rgb --save-traj -c pd_ee_delta_pose`",
        )
    mode = next(iter(modes), None)
    rate = (options.get("sim_config") or {}).get("control_freq")
    return describe_control(mode).replaced_by(Conventions(environment=env.get("env_id"), fps=rate))


def describe_control(mode: str | None) -> Conventions:
    """Returns what the name of one of ManiSkill's control modes says of the actions."""
    if mode is None:
        return NOTHING_STATED
    action = "delta" if "delta" in mode else "velocity" if mode.endswith("vel") else "absolute"
    frame = "base" if "_ee_" in mode else "joints" if "_joint_" in mode else None
    return Conventions(control_mode=mode, action=action, frame=frame)
