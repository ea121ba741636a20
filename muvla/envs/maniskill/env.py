"""ManiSkill's tasks, through the adapter of MIKASA-Robo.

Legend: V cameras, h×w image, Q proprio dim, A action dim (7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from muvla.envs.maniskill.tasks import MANISKILL_TASKS, ManiSkillTask
from muvla.envs.mikasa.env import MikasaEnv
from muvla.envs.mikasa.families import Family
from muvla.envs.mikasa.simulator import ActionTap, load_maniskill, make, require

OPEN = 0.5  # a larger number opens the twins' gripper, any other closes it


class Flat(gymnasium.Wrapper):
    """Give observations the adapter's form: rgb (1, h, w, V·3) uint8 and proprio (1, Q), the joint positions.

    Cameras have the simulator's order.
    """

    def reset(self, **arguments: Any):
        raw, info = self.env.reset(**arguments)
        return self._flat(raw), info

    def step(self, action: np.ndarray):
        raw, *rest = self.env.step(action)
        return self._flat(raw), *rest

    @staticmethod
    def _flat(raw: dict[str, Any]) -> dict[str, Any]:
        import torch

        frames = torch.cat([camera["rgb"] for camera in raw["sensor_data"].values()], dim=-1)
        return {"rgb": frames, "proprio": raw["agent"]["qpos"]}


class TwinGripper(gymnasium.ActionWrapper):
    """Turn Bridge's gripper number, 0 (closed) to 1 (open), into the simulator's -1 or 1."""

    def action(self, action: np.ndarray) -> np.ndarray:
        return np.append(action[:-1], 1.0 if action[-1] > OPEN else -1.0).astype(np.float32)


class Twin(Family):
    def options(self, seed: int) -> dict[str, Any]:
        """The seed is the number of the arrangement of the objects, counted around after the last one."""
        import torch

        return {"episode_id": torch.tensor([seed])}


def _build(
    task: ManiSkillTask, step_limit: int, sim_backend: str, render_backend: str
) -> tuple[gymnasium.Env, ActionTap]:
    load_maniskill()
    require(task.assets)
    env = make(task.name, step_limit, sim_backend, render_backend, **task.options)
    tap = ActionTap(TwinGripper(env) if task.family == "widowx" else env)
    return Flat(tap), tap


class ManiSkillEnv(MikasaEnv):
    """A MikasaEnv with these differences.

    - The task defines cameras and proprio (`ManiSkillTask`). Proprio holds joint positions, as `muvla data import`
    reads
      them from ManiSkill's files.
    - The whole episode is decision. Nothing is chosen, and there is no expert.
    - An episode ends at success (`terminated`).

    The Panda has MIKASA's actions (pd_ee_delta_pose). The twins' WidowX takes metres and radians relative to the last
    target, and the gripper's number of Bridge's data: more than a half opens, else the gripper closes. The twins'
    images are 4:3, and are squeezed into squares.
    """

    tasks: ClassVar[Mapping[str, ManiSkillTask]] = MANISKILL_TASKS
    families: ClassVar[Mapping[str, type[Family]]] = {"panda": Family, "widowx": Twin}
    build = staticmethod(_build)
