"""ManiSkill's tasks, and the facts about each task that are known before the simulator runs.

Step limits are those of ManiSkill's registration. The Panda tasks are ManiSkill's tasks of one Panda at a table that
need no asset. Their images show what must be done, except in PickCube, where no camera sees the goal. ManiSkill has no
text for them, so this project wrote the sentences. The twins' sentences are ManiSkill's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from muvla.envs.assets import AssetSet
from muvla.envs.conventions import Conventions
from muvla.envs.maniskill.assets import BRIDGE
from muvla.envs.mikasa.simulator import PANDA

# The twins' WidowX: SimplerEnv's controller, at the rate of Bridge's data.
WIDOWX = Conventions(
    control_mode="arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos",
    action="delta",
    frame="base",
    gripper="positive_opens",
    units="metric",
    fps=5,
)


@dataclass(frozen=True)
class ManiSkillTask:
    """One task, with the fields of a MikasaTask that the adapter reads. Nothing is cued, and nothing is chosen."""

    name: str
    family: str  # panda or widowx; decides the suite
    step_limit: int
    instruction: str
    cameras: int = 1

    objects: ClassVar[None] = None
    expert: ClassVar[bool] = False

    @property
    def suite(self) -> str:
        return {"panda": "maniskill", "widowx": "bridge"}[self.family]

    @property
    def camera(self) -> int:
        """Pixels, square. The twins render 640 × 480; 256 is the size of Bridge's stored data."""
        return {"panda": 128, "widowx": 256}[self.family]

    @property
    def proprio(self) -> int:
        """Size of agent/qpos in the demonstrations: joint positions in radians, two finger positions in metres."""
        return {"panda": 9, "widowx": 8}[self.family]

    @property
    def assets(self) -> tuple[AssetSet, ...]:
        return (BRIDGE,) if self.family == "widowx" else ()

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the simulator. No reward is computed, because nothing uses the reward."""
        if self.family == "panda":
            return {"reward_mode": "none"}
        return {"reward_mode": "none", "obs_mode": "rgb+segmentation", "control_mode": WIDOWX.control_mode}

    @property
    def conventions(self) -> Conventions:
        return replace({"panda": PANDA, "widowx": WIDOWX}[self.family], environment=self.name)


def _panda(name: str, step_limit: int, instruction: str, cameras: int = 1) -> ManiSkillTask:
    return ManiSkillTask(f"{name}-v1", "panda", step_limit, instruction, cameras)


def _twin(name: str, step_limit: int, instruction: str) -> ManiSkillTask:
    return ManiSkillTask(f"{name}-v1", "widowx", step_limit, instruction)


MANISKILL_TASKS = {
    task.name: task
    for task in (
        _panda("PickCube", 50, "Pick up the cube and hold it at the goal."),
        _panda("PushCube", 50, "Push the cube onto the target."),
        _panda("PullCube", 50, "Pull the cube onto the target."),
        _panda("StackCube", 50, "Stack the red cube on the green cube.", cameras=2),
        _panda("LiftPegUpright", 50, "Lift the peg and stand it upright."),
        _panda("PegInsertionSide", 100, "Insert the peg into the hole of the box.", cameras=2),
        _panda("PlaceSphere", 50, "Place the sphere in the bin."),
        _panda("PokeCube", 50, "Poke the cube onto the target with the peg."),
        _panda("RollBall", 80, "Roll the ball into the target."),
        _panda("PlugCharger", 200, "Plug the charger into the receptacle.", cameras=2),
        _panda("StackPyramid", 250, "Put the two cubes side by side and stack the third on top of them.", cameras=2),
        _panda("PullCubeTool", 100, "Pull the cube closer with the tool."),
        _twin("PutCarrotOnPlateInScene", 60, "put carrot on plate"),
        _twin("PutSpoonOnTableClothInScene", 60, "put the spoon on the towel"),
        _twin("StackGreenCubeOnYellowCubeBakedTexInScene", 60, "stack the green block on the yellow block"),
        _twin("PutEggplantInBasketScene", 120, "put eggplant into yellow basket"),
    )
}
