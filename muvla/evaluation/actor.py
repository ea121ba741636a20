"""The contract of an actor, which chooses the actions of a rollout's episodes.

A trained policy is an actor (`policy_actor`), and so are the random policy and the scripted expert (`baselines`).
`muvla.evaluation.rollout.Rollout` resets and steps the environments, and asks its actor for chunks of actions.

Legend: H chunk, A action dim, m memory, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.protocol import Protocol
from muvla.interventions.base import Intervention
from muvla.memory.base import State


@dataclass(frozen=True)
class Tick:
    """One tick of one episode, for recorders. An actor without memory and model has no ticks."""

    episode: RunningEpisode
    chunk: np.ndarray  # (H, A) predicted, normalised
    read: Tensor  # (m, D) tokens that the model saw
    written: State  # the state after the tick, leaves without their slot dimension


class Actor(ABC):
    """Chooses actions for `slots` episodes side by side.

    Args:
        protocol: decides the tasks, the step limit and how many actions follow one query.
        slots: episodes side by side. The batch shape of a model never changes during a rollout.
        intervention: what the actor's memory undergoes, or None. The rows name it.
    """

    def __init__(self, protocol: Protocol, slots: int, intervention: Intervention | None = None):
        self.protocol, self.slots, self.intervention = protocol, slots, intervention

    @property
    def restores(self) -> bool:
        """True if `restore` may begin an episode at a later step than its first."""
        return False

    def require_fit(self, env: WorkerEnv | LocalEnv) -> None:  # noqa: B027 (most actors act in any environment)
        """Raise MuvlaError unless the actor can act in this environment. Called once, before the first episode."""

    def restore(self, episode: RunningEpisode) -> RunningEpisode | None:
        """Return the episode at a later step that an earlier rollout has computed, or None to reset its environment.

        Called at the beginning of an episode. The returned object has the same index, seed and environment, and the
        environment is at that step.
        """
        return None

    def begin(self, episode: RunningEpisode) -> None:  # noqa: B027 (most actors need nothing more)
        """Take what the actor needs to know of an episode, for example its donor.

        Called when `episode.observation` and `episode.info` hold the first observation, or that of the restored step.
        Raise MuvlaError if the episode lacks what the actor needs.
        """

    @abstractmethod
    def needs_query(self, episode: RunningEpisode) -> bool:
        """Return True if `act` must be called before the episode's next step, False while its chunk lasts."""

    @abstractmethod
    def act(self, episodes: Sequence[RunningEpisode], ready: Sequence[RunningEpisode]) -> list[Tick]:
        """Give every ready episode a `chunk` (n, A) and its `chunk_age`.

        Args:
            episodes: all `slots` episodes, by index. Leave episodes that are not ready as they are: their environment
                is at work, or their slot is empty. A batched model computes them along.
            ready: the episodes to act on.

        Returns:
            The ticks of the ready episodes, in the order of their index.
        """

    def check_episode(self, episode: RunningEpisode) -> None:  # noqa: B027 (an actor without memory has nothing to check)
        """Check an episode that has ended without an error. Raise NotAMeasurement if an invariant broke."""

    def close(self) -> None:  # noqa: B027 (most actors hold nothing open)
        """Release what the actor holds. Called when the rollout is closed."""
