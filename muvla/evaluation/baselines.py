"""Baselines: a random policy, the scripted expert, and the best memoryless policy.

| name | what it is |
|---|---|
| `random` | actions uniform in [-1, 1], keyed by the episode's seed and the step; the Bridge twins have none |
| `expert` | the environment's scripted expert, where the task has one; it reads the simulator's state |
| `memoryless ideal` | not run: the highest expected score of a policy without memory, where it is known |

`random` and `expert` act anew at every step, also under a protocol whose policies execute chunks open loop. Episodes,
step limit, break at success and metrics are the protocol's, and the event loop is that of trained policies.

Legend: A action dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from muvla.envs.registry import bounds, task_info
from muvla.errors import MuvlaError
from muvla.evaluation.actor import Actor, Tick
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.protocol import Protocol, chance
from muvla.utils.rng import numpy_rng


def _random(episode: RunningEpisode) -> np.ndarray:
    shape = episode.env.attribute("action_space").shape
    return numpy_rng(episode.seed, "random policy", episode.step).uniform(-1, 1, shape).astype(np.float32)


def _expert(episode: RunningEpisode) -> np.ndarray:
    return np.asarray(episode.info["expert_action"], dtype=np.float32)


ACTIONS: dict[str, Callable[[RunningEpisode], np.ndarray]] = {"random": _random, "expert": _expert}


def baseline_names(protocol: Protocol) -> tuple[str, ...]:
    """Names of ACTIONS that the protocol's task has.

    The Bridge twins have no `random`: their actions are metres and radians, for which [-1, 1] is no policy's range.
    """
    task = task_info(protocol.task.name)
    present = {"random": task.random_actions, "expert": task.expert}
    return tuple(name for name in ACTIONS if present[name])


class BaselineActor(Actor):
    """Acts by one of ACTIONS. Raises MuvlaError for a name that the protocol's task does not have."""

    def __init__(self, name: str, protocol: Protocol, slots: int):
        available = baseline_names(protocol)
        if name not in available:
            raise MuvlaError(
                "baseline",
                got=f"{name} of {protocol.task.name}",
                expected=f"one of {', '.join(available)}" if available else "nothing: the task has no such baseline",
                remedy="choose another task, or leave this baseline out",
            )
        super().__init__(protocol, slots)
        self._action = ACTIONS[name]

    def needs_query(self, episode: RunningEpisode) -> bool:
        return True

    def act(self, episodes: Sequence[RunningEpisode], ready: Sequence[RunningEpisode]) -> list[Tick]:
        for episode in ready:
            episode.chunk, episode.chunk_age = self._action(episode)[None], 0
        return []


def memoryless_ideal(protocol: Protocol) -> dict[str, float | None]:
    """Metric → the highest expected score of a policy without memory, or None where it is not known.

    Success is bounded where the first choice ends the episode, as in the recall suite. Elsewhere a policy may touch
    the objects one after the other.
    """
    choice = chance(protocol)
    success = None if choice is None else bounds(protocol.task).success
    return {"touch": None if choice is None else 1.0, "choice": choice, "success": success}
