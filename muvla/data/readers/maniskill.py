"""ManiSkill trajectories (mani_skill 3.0.1, its RecordEpisode): `NAME.h5`, and beside it `NAME.json`.

    traj_<episode_id>/actions (T, A) float32
    traj_<episode_id>/obs/sensor_data/<camera>/rgb (T+1, h, w, 3) uint8    the last one answers no action
    traj_<episode_id>/obs/agent/qpos (T+1, …) float32, obs/extra/…

Features are the paths below `obs`, and `actions`. Which task is meant no file says in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.source import Feature, Record, need, no_feature, require_keys, unlike
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

ACTIONS, INSTRUCTION = "actions", "instruction"


class ManiSkillFile:
    """Episodes that the json marks as failed are left out. Raises MuvlaError for a missing or damaged file, for one
    recorded without images, and without an instruction."""

    format = "maniskill"

    def __init__(self, path: Path, instruction: str | None):
        self.path = path
        if not (instruction or "").strip():
            raise MuvlaError(
                "--instruction",
                got=instruction,
                expected="what the policy is told: these files have no text",
                remedy="give the instruction of the task",
            )
        self.instruction = instruction
        beside = path.with_suffix(".json")
        told: list[dict[str, Any]] = read_json(beside).get("episodes", [])
        for one in told:
            require_keys(beside, one, ("episode_id", "elapsed_steps"))
        self.episodes = [one for one in told if one.get("success") is not False]
        self.failed = len(told) - len(self.episodes)
        if not self.episodes:
            raise unlike(str(beside), f"{self.failed} episodes, all failed", "some that succeeded")
        self._h5py = need("h5py", "to read ManiSkill's trajectories")
        with self._open() as file:
            missing = [one["episode_id"] for one in self.episodes if f"traj_{one['episode_id']}" not in file]
            if missing:
                where = f"{path}: episode {missing[0]}"
                raise unlike(where, f"no traj_{missing[0]}", f"{len(told)} episodes, as the json tells")
            self.features = self._features(file[f"traj_{self.episodes[0]['episode_id']}"])
        if not self.cameras:
            raise MuvlaError(
                str(path),
                got="trajectories without images",
                expected="obs/sensor_data/<camera>/rgb",
                remedy="record the images with `python -m mani_skill.trajectory.replay_trajectory --traj-path "
                f"{path} --obs-mode rgb --save-traj`, and import what that writes",
            )

    def __len__(self) -> int:
        """Episodes."""
        return len(self.episodes)

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name.removesuffix(".h5")

    @property
    def origin(self) -> str:
        """By names and sizes."""
        told = f"{len(self)} episodes, {self.failed} failed ones left out, {self.path.stat().st_size} bytes"
        return f"{self.name} (ManiSkill, {told}), instruction {self.instruction!r}"

    @property
    def frames(self) -> int:
        return sum(one["elapsed_steps"] for one in self.episodes)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The features that are images, in the file's order."""
        return tuple(path for path, one in self.features.items() if one.kind == "image")

    def feature(self, path: str) -> Feature:
        """Raises MuvlaError for one that is not there or cannot be read."""
        if path not in self.features:
            raise no_feature(self.path, path, self.features)
        return self.features[path]

    def records(self, paths: Iterable[str], skip: int = 0) -> Iterator[Record]:
        """The episodes but the first `skip`, in the json's order; raises MuvlaError for damage and for an episode of
        another length than the json tells."""
        paths = list(paths)
        with self._open() as file:
            for one in self.episodes[skip:]:
                where = f"{self.path}: traj_{one['episode_id']}"
                values = self._values(file[f"traj_{one['episode_id']}"], paths, one["elapsed_steps"], where)
                seed = one.get("episode_seed")
                yield Record(where, values, {} if seed is None else {"seed": int(np.ravel(seed)[0])})

    def _values(self, group, paths: list[str], steps: int, where: str) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for path in paths:
            if path == INSTRUCTION:
                values[path] = np.array([self.instruction])
                continue
            try:
                found = group[path if path == ACTIONS else f"obs/{path}"][()]
            except KeyError:
                raise unlike(f"{where}: {path}", "no such array", "one, as in the first episode") from None
            except OSError as error:
                raise unlike(f"{where}: {path}", f"damage ({error})", "whole arrays") from None
            wanted = steps + (path != ACTIONS)
            if len(found) != wanted:
                raise unlike(f"{where}: {path}", f"{len(found)} rows", f"{wanted}, as the json tells")
            values[path] = found[:steps]
        return values

    def _features(self, group) -> dict[str, Feature]:
        """Of the first episode; everything else is held against it."""
        features = {INSTRUCTION: Feature(INSTRUCTION, "text", "string")}

        def add(path: str, node) -> None:
            if isinstance(node, self._h5py.Dataset):
                kind = "image" if path.startswith("sensor_data/") and path.endswith("/rgb") else "tensor"
                features[path] = Feature(path, kind, node.dtype.name, node.shape[1:])

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
                expected="ManiSkill's trajectories",
                remedy="copy or download the file again",
            ) from None
