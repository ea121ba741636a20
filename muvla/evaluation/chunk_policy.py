"""A trained policy for the MIKASA suite's own runner, `mikasa_robo_suite.vla.benchmarking`, as its `ChunkPolicy`.

The runner asks `forward(observation)` for the next actions of one environment, and never says that an episode begins;
after each it calls its `episode_callback`, which must be `episode_ended` here: it clears the memory. Forgotten, it is
noticed when an episode becomes longer than the task's.

    benchmarking.evaluate_task(task, policy, config, episode_callback=policy.episode_ended)

Legend: V cameras (2), h×w image, Q proprio dim (7), H chunk, h executed, A action dim (7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch

from muvla.data.normalization import Statistics
from muvla.envs.mikasa.env import ACTION_DIM, pictures, proprioception, resized
from muvla.envs.mikasa.tasks import MIKASA_TASKS
from muvla.envs.phases import Phase
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.checks import require_robot
from muvla.evaluation.episode import RunningEpisode, executable
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.models.policy import Policy


class SuitePolicy(Rollout):
    """A rollout of one slot whose environment is the runner's. What a query computes, and its checks, are those of any
    rollout; an episode's number counts up from the protocol's seed, as the runner's does from `start_seed`.

    Raises MuvlaError for a task of another suite, for one whose instruction names what the runner does not pass on
    (Rotate's angle), for a robot that is not the policy's, for a memory that ticks between the queries of a chunk, and
    for more actions per query than a chunk has.
    """

    def __init__(self, policy: Policy, statistics: Statistics, protocol: Protocol):
        task = task_info(protocol.task.name)
        if protocol.task.name not in MIKASA_TASKS or len(task.instructions) > 1:
            raise MuvlaError(
                "protocol.task",
                got=protocol.task.name,
                expected="a task of MIKASA-Robo whose episodes share one instruction",
                remedy="choose another protocol, or use `muvla evaluate`",
            )
        if protocol.h > 1 and protocol.tick != "call":
            raise MuvlaError(
                "protocol.tick",
                got=f"{protocol.tick} with h = {protocol.h}",
                expected="call: the runner shows the policy nothing while a chunk lasts",
                remedy="choose another protocol, or use `muvla evaluate`",
            )
        if protocol.h > policy.config.chunk:
            raise MuvlaError(
                "protocol.h",
                got=protocol.h,
                expected=f"at most the policy's chunk H = {policy.config.chunk}: the runner holds no action",
                remedy="choose another protocol, or use `muvla evaluate`",
            )
        self._task, self._instruction = MIKASA_TASKS[protocol.task.name], task.instruction
        super().__init__(policy, statistics, replace(protocol, slots=1), gymnasium.Env)
        self._begin_episode(protocol.seed)

    @property
    def chunk_size(self) -> int:
        """Actions that `forward` returns, all of which are executed."""
        return self.protocol.h

    @torch.no_grad()
    def forward(self, obs: Mapping[str, Any]) -> np.ndarray:
        """(h, A) float32 in [-1, 1], for a wrapped observation of the suite."""
        (slot,) = self.slots
        if slot.step >= self._task.step_limit:
            raise MuvlaError(
                "episode_callback",
                got=f"a query after {slot.step} steps of one episode",
                expected=f"at most {self._task.step_limit} steps, and a call of `episode_ended` after each episode",
                remedy="evaluate_task(…, episode_callback=policy.episode_ended)",
            )
        images = resized(pictures(obs), self.protocol.image_size or self._task.camera)
        slot.observation = {"images": images, "proprio": proprioception(obs)}
        if slot.is_first:
            slot.first_image = images[:1].copy()
        slot.chunk = None
        self._tick([slot])
        actions = np.stack([executable(action, slot) for action in slot.chunk[: self.chunk_size]])
        slot.step += self.chunk_size
        return actions

    def episode_ended(self, index: int, result: Any) -> None:
        """The runner's `episode_callback`; raises NotAMeasurement if what was computed is not this episode's."""
        (slot,) = self.slots
        if result.seed != slot.seed:
            raise NotAMeasurement(
                "episode_callback",
                got=f"the end of episode seed {result.seed}",
                expected=f"that of {slot.seed}",
                remedy="give the runner the protocol's first seed (start_seed), and this policy its episodes in order",
            )
        slot.step = result.n_steps
        self._check_episode(slot)
        self._begin_episode(slot.seed + 1)

    def _begin_episode(self, seed: int) -> None:
        told = {"instruction": self._instruction, "phase": Phase.UNKNOWN}
        self.slots[0].__dict__.update(RunningEpisode(seed=seed, info=told).__dict__)

    def _open(self, make_env: Callable[[], gymnasium.Env], environments: int | None) -> None:
        """The runner has the environment."""
        require_robot(self.policy, (self._task.cameras, self._task.proprio, ACTION_DIM))
