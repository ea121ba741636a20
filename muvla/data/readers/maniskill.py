"""ManiSkill trajectories (mani_skill 3.0.1, its RecordEpisode): `NAME.h5`, with `NAME.json` beside it.

    traj_<episode_id>/actions (T, A) float32
    traj_<episode_id>/obs/sensor_data/<camera>/rgb (T+1, h, w, 3) uint8    no action follows the last image
    traj_<episode_id>/obs/agent/qpos (T+1, …) float32, obs/extra/…

Features are the paths below `obs`, and `actions`. ManiSkill writes no instruction; texts that others added to the
json's episodes, or as attributes of a trajectory, are features by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from muvla.data.readers.format import Format, by_name
from muvla.data.readers.hdf5 import get_names
from muvla.data.readers.schema import Schema
from muvla.data.readers.source import Feature, mismatch
from muvla.data.readers.trajectories import Trajectory, TrajectoryFile
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.errors import MuvlaError
from muvla.utils.foreign import decode, read_model

REPLAY = "python -m mani_skill.trajectory.replay_trajectory --traj-path"
PREFIX = "traj_"


class ManiSkillFile(TrajectoryFile):
    """A file of trajectories, without the episodes that the json marks as failed.

    Opening raises MuvlaError for a missing or damaged file, and a file without images.
    """

    format = "maniskill"
    observations_after_the_last_action = 1

    def __init__(self, path: Path):
        beside = path.with_suffix(".json")
        description = _read_description(beside)
        successful = [episode for episode in description.episodes if episode.facts.success is not False]
        self.failed = len(description.episodes) - len(successful)
        if not successful:
            raise mismatch(
                str(beside),
                f"{self.failed} episodes, all failed",
                "successful episodes",
                "record the trajectories with a policy or planner that succeeds",
            )
        self.conventions = _find_conventions(description, beside)
        super().__init__(path, [_make_trajectory(episode) for episode in successful])
        links = any("link to" in feature.content for feature in self.features.values())
        if not links and not self._cameras(self.features):
            raise MuvlaError(
                str(path),
                got="trajectories without images",
                expected="obs/sensor_data/<camera>/rgb",
                remedy=f"record the images with `{REPLAY} {path} --obs-mode rgb --save-traj`, and import the file "
                "that it writes",
            )

    @property
    def origin(self) -> str:
        """Names and sizes."""
        content = f"{len(self)} episodes, {self.failed} failed ones left out, {self.path.stat().st_size} bytes"
        return f"{self.name} (ManiSkill, {content})"

    def _content(self, path: str, feature: Feature) -> str:
        """Images lie in `sensor_data`; other pictures there are masks and depths."""
        rgb = path.startswith("sensor_data/") and path.endswith("/rgb")
        return "tensor" if feature.content == "image" and not rgb else feature.content

    def _may_be_camera(self, path: str) -> bool:
        inside = path.startswith("sensor_data/") and (path.count("/") == 1 or path.endswith("/rgb"))
        return inside or path in ("obs", "sensor_data")


class EpisodeFacts(msgspec.Struct):
    """The entries of an episode in the json that the reader uses."""

    episode_id: Annotated[int, msgspec.Meta(ge=0)]
    elapsed_steps: Annotated[int, msgspec.Meta(ge=0)]
    success: Any = None
    episode_seed: int | list[int] | None = None
    control_mode: str | None = None


class Simulation(msgspec.Struct):
    control_freq: float | None = None


class EnvironmentOptions(msgspec.Struct):
    control_mode: str | None = None
    sim_config: Simulation | None = None


class Environment(msgspec.Struct):
    env_id: str | None = None
    env_kwargs: EnvironmentOptions | None = None


class File(msgspec.Struct):
    """The json beside the trajectories."""

    episodes: list[dict[str, Any]]
    env_info: Environment | None = None


@dataclass(frozen=True)
class ListedEpisode:
    facts: EpisodeFacts
    texts: dict[str, str]  # all entries that are texts


@dataclass(frozen=True)
class Description:
    episodes: list[ListedEpisode]
    environment: Environment


def _read_description(beside: Path) -> Description:
    if not beside.exists():
        raise MuvlaError(
            str(beside),
            got="no such file",
            expected="the json that ManiSkill writes beside the trajectories",
            remedy=f"copy it from the source of {beside.with_suffix('.h5').name}; both files have one name",
        )
    file = read_model(beside, File)
    episodes = [
        ListedEpisode(
            decode(entry, EpisodeFacts, f"{beside}: episodes[{number}]"),
            {name: value for name, value in entry.items() if isinstance(value, str)},
        )
        for number, entry in enumerate(file.episodes)
    ]
    return Description(episodes, file.env_info or Environment())


def _make_trajectory(episode: ListedEpisode) -> Trajectory:
    facts = episode.facts
    seeds = facts.episode_seed if isinstance(facts.episode_seed, list) else [facts.episode_seed]
    info = {"seed": seeds[0]} if seeds and seeds[0] is not None else {}
    return Trajectory(f"{PREFIX}{facts.episode_id}", facts.elapsed_steps, dict(episode.texts), info)


def _find_conventions(description: Description, beside: Path) -> Conventions:
    """Returns what the json states of the actions. Raises MuvlaError where its episodes have several control modes."""
    options = description.environment.env_kwargs or EnvironmentOptions()
    stated = [options.control_mode, *(episode.facts.control_mode for episode in description.episodes)]
    modes = dict.fromkeys(mode for mode in stated if mode)
    if len(modes) > 1:
        raise MuvlaError(
            f"{beside}: control_mode",
            got=f"several, {', '.join(modes)}",
            expected="one control mode for all actions",
            remedy=f"replay the trajectories with one control mode: `{REPLAY} {beside.with_suffix('.h5')} "
            "--obs-mode rgb --save-traj -c pd_ee_delta_pose`",
        )
    simulation = options.sim_config or Simulation()
    facts = Conventions(environment=description.environment.env_id or None, fps=simulation.control_freq)
    return describe_control(next(iter(modes), None)).replaced_by(facts)


def describe_control(mode: str | None) -> Conventions:
    """Returns what the name of one of ManiSkill's control modes says of the actions."""
    if mode is None:
        return NOTHING_STATED
    action = "delta" if "delta" in mode else "velocity" if mode.endswith("vel") else "absolute"
    frame = "base" if "_ee_" in mode else "joints" if "_joint_" in mode else None
    return Conventions(control_mode=mode, action=action, frame=frame)


def is_maniskill(path: Path) -> bool:
    """True for an HDF5 file of trajectories."""
    return any(name.startswith(PREFIX) for name in get_names(path))


FORMAT = Format(
    layout="an .h5 file of traj_<number> with a .json beside it (ManiSkill)",
    matches=is_maniskill,
    open=ManiSkillFile,
    schemas=by_name(
        Schema(
            name="maniskill",
            cameras=(),  # all cameras of the file
            proprio=("agent/qpos",),
            proprio_dim=None,
            action=("actions",),
            action_dim=None,
            instruction=None,
        )
    ),
)
