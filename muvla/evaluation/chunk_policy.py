"""A trained policy for the MIKASA suite's own runner, `mikasa_robo_suite.vla.benchmarking`, as its `ChunkPolicy`.

The runner asks `forward(observation)` for the next actions of one environment, and never says that an episode begins.
After each episode it calls its `episode_callback`, which must be `episode_ended` here: that call resets the memory.
A runner without the callback is noticed when an episode becomes longer than the task's.

    benchmarking.evaluate_task(task, policy, config, episode_callback=policy.episode_ended)

Legend: V cameras (2), h×w image, Q proprio dim (7), H chunk, h executed, A action dim (7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from muvla.data.normalization import Statistics
from muvla.envs.mikasa.env import ACTION_DIM, pictures, proprioception, resized
from muvla.envs.mikasa.tasks import MIKASA_TASKS
from muvla.envs.phases import Phase
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.checks import require_robot
from muvla.evaluation.episode import RunningEpisode, executable
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.models.policy import Policy


class SuitePolicy:
    """A policy actor of one slot, without the event loop: the runner has the environment.

    A query and its checks are those of any rollout. Episode seeds count up from the protocol's seed, as the runner's
    count up from `start_seed`.

    Raises:
        MuvlaError: the task is of another suite, its instruction names what the runner does not pass on (Rotate's
            angle), the robot is not the policy's, the memory ticks between the queries of a chunk, or a query executes
            more actions than a chunk has.
    """

    def __init__(self, policy: Policy, statistics: Statistics, protocol: Protocol):
        _require_runnable(policy, protocol)
        self._task = MIKASA_TASKS[protocol.task.name]
        self._instruction = task_info(protocol.task.name).instruction
        self.protocol = protocol
        self.actor = PolicyActor(policy, statistics, replace(protocol, slots=1))
        require_robot(policy, (self._task.cameras, self._task.proprio, ACTION_DIM))
        self._begin_episode(protocol.seed)

    @property
    def chunk_size(self) -> int:
        """Number of actions that `forward` returns; the runner executes all of them."""
        return self.protocol.h

    def forward(self, obs: Mapping[str, Any]) -> np.ndarray:
        """Return the next actions (h, A) float32 in [-1, 1] for a wrapped observation of the suite."""
        episode = self._episode
        if episode.step >= self._task.step_limit:
            raise MuvlaError(
                "episode_callback",
                got=f"a query after {episode.step} steps of one episode",
                expected=f"at most {self._task.step_limit} steps, and a call of `episode_ended` after each episode",
                remedy="evaluate_task(…, episode_callback=policy.episode_ended)",
            )
        images = resized(pictures(obs), self.protocol.image_size or self._task.camera)
        episode.observation = {"images": images, "proprio": proprioception(obs)}
        if episode.is_first:
            episode.first_images = images.copy()
        episode.chunk = None
        self.actor.act([episode], [episode])
        actions = np.stack([executable(action, episode) for action in episode.chunk[: self.chunk_size]])
        episode.step += self.chunk_size
        return actions

    def episode_ended(self, index: int, result: Any) -> None:
        """The runner's `episode_callback`. Raises NotAMeasurement if the episode computed here is another one."""
        episode = self._episode
        if result.seed != episode.seed:
            raise NotAMeasurement(
                "episode_callback",
                got=f"the end of episode seed {result.seed}",
                expected=f"the end of episode seed {episode.seed}",
                remedy="give the runner the protocol's first seed (start_seed), and this policy its episodes in order",
            )
        episode.step = result.n_steps
        self.actor.check_episode(episode)
        self._begin_episode(episode.seed + 1)

    def _begin_episode(self, seed: int) -> None:
        info = {"instruction": self._instruction, "phase": Phase.UNKNOWN}
        self._episode = RunningEpisode(0, seed=seed, info=info)


def _require_runnable(policy: Policy, protocol: Protocol) -> None:
    """Raise MuvlaError for a protocol that the runner cannot evaluate."""
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
