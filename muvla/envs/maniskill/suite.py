"""Two suites on ManiSkill: its table-top tasks, and SimplerEnv's Bridge twins with another robot and other assets."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from muvla.config import TaskConfig
from muvla.envs.base import PUBLISHED_REGIMES, ProtocolSpec, Suite, TaskInfo
from muvla.envs.maniskill.assets import BRIDGE
from muvla.envs.maniskill.env import ManiSkillEnv
from muvla.envs.maniskill.tasks import MANISKILL_TASKS, ManiSkillTask
from muvla.envs.mikasa.simulator import backends


class ManiSkillSuite(Suite):
    name = "maniskill"
    extra = "sim"
    requirements = ("sapien",)
    install = "run `make sim`"

    # The name of the protocol set, and settings of its protocols: the episode seeds are MIKASA's.
    set_name: ClassVar[str] = "maniskill12"
    episodes: ClassVar[int] = 100
    settings: ClassVar[dict[str, Any]] = {"slots": 16}
    # Actions of the Panda are in [-1, 1].
    random_actions: ClassVar[bool] = True

    def tasks(self) -> tuple[str, ...]:
        return tuple(task.name for task in self._tasks())

    def info(self, task: str) -> TaskInfo:
        facts = MANISKILL_TASKS[task]
        return TaskInfo(
            suite=self.name,
            instruction=facts.instruction,
            camera=facts.camera,
            random_actions=self.random_actions,
            own_process=True,
            settable=("physics",),
            conventions=facts.conventions,
        )

    def step_limit(self, task: TaskConfig) -> int:
        return MANISKILL_TASKS[task.name].step_limit

    def make_env(self, task: TaskConfig, image_size: int | None = None) -> ManiSkillEnv:
        return ManiSkillEnv(task.name, image_size, sim_backend=task.physics or "cpu")

    def backends(self, task: TaskConfig) -> str:
        return backends(task, MANISKILL_TASKS[task.name].assets)

    def renderer(self) -> str:
        env = ManiSkillEnv("PickCube-v1")
        frame = env.reset(seed=0)[0]["images"]
        return f"{env.render_backend} rendered {frame.shape} mean {frame.mean():.1f}"

    def protocols(self) -> tuple[ProtocolSpec, ...]:
        return tuple(self._protocol(task, regime) for regime in PUBLISHED_REGIMES for task in self._tasks())

    def protocol_sets(self) -> dict[str, tuple[str, ...]]:
        return {
            f"{self.set_name}-{regime}@1": tuple(self._protocol(task, regime).id for task in self._tasks())
            for regime in PUBLISHED_REGIMES
        }

    def _tasks(self) -> list[ManiSkillTask]:
        return [task for task in MANISKILL_TASKS.values() if task.suite == self.name]

    def _protocol(self, task: ManiSkillTask, regime: str) -> ProtocolSpec:
        settings = {**self.settings, **PUBLISHED_REGIMES[regime]}
        name = f"{self.name}-{_short_name(task)}-{regime}"
        return ProtocolSpec(name, TaskConfig(task.name), self.episodes, settings=settings)


class BridgeSuite(ManiSkillSuite):
    """The twins. Episode i is arrangement i of the objects, and SimplerEnv evaluates the first 24."""

    name = "bridge"
    assets = (BRIDGE,)
    set_name = "bridge4"
    episodes = 24
    settings: ClassVar = {"seed": 0, "slots": 16}
    # Actions are metres and radians: no policy acts uniformly in [-1, 1].
    random_actions = False

    def protocols(self) -> tuple[ProtocolSpec, ...]:
        return (*super().protocols(), *(self._memoryvla(task) for task in self._tasks()))

    def protocol_sets(self) -> dict[str, tuple[str, ...]]:
        ensemble = tuple(self._memoryvla(task).id for task in self._tasks())
        return super().protocol_sets() | {f"memoryvla-{self.set_name}@1": ensemble}

    def _memoryvla(self, task: ManiSkillTask) -> ProtocolSpec:
        """MemoryVLA's evaluation (M 6): a query at every step, and the adaptive ensemble of seven chunks."""
        settings = {**self.settings, "regime": "ensemble", "horizon": 7}
        name = f"memoryvla-{self.name}-{_short_name(task)}"
        return ProtocolSpec(name, TaskConfig(task.name), self.episodes, settings=settings)


def _short_name(task: ManiSkillTask) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", task.name.removesuffix("-v1")).lower()
