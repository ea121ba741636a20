"""Policies that were never trained, and what is known without running one: between which numbers a trained one lies.

| name | what it is |
|---|---|
| `random` | actions uniform in [-1, 1], keyed by the episode's seed and the step; not of the Bridge twins |
| `expert` | the environment's scripted expert, where the task has one: it reads the simulator's state |
| `memoryless ideal` | not run: what no policy without memory can exceed in expectation, where that is known |

`random` and `expert` act anew at every step, also under a protocol whose policies run chunks open loop. Episodes, step
limit, break at success and metric are the protocol's, by the code that rolls out trained policies.

Legend: A action dim.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np

from muvla.envs.registry import task_info
from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.errors import MuvlaError
from muvla.evaluation.episode import RunningEpisode
from muvla.evaluation.protocol import Protocol, chance
from muvla.evaluation.rollout import Rollout
from muvla.utils.rng import numpy_rng


def _random(slot: RunningEpisode) -> np.ndarray:
    numbers = slot.env.attribute("action_space").shape
    return numpy_rng(slot.seed, "random policy", slot.step).uniform(-1, 1, numbers).astype(np.float32)


def _expert(slot: RunningEpisode) -> np.ndarray:
    return np.asarray(slot.info["expert_action"], dtype=np.float32)


ACTIONS: dict[str, Callable[[RunningEpisode], np.ndarray]] = {"random": _random, "expert": _expert}


def unlearned(protocol: Protocol) -> tuple[str, ...]:
    """Those that the protocol's task has. The Bridge twins have no `random`: their actions are metres and radians, of
    which [-1, 1] is no range that a policy has."""
    task = task_info(protocol.task.name)
    present = {"random": task.random_actions, "expert": task.expert}
    return tuple(name for name in ACTIONS if present[name])


class UnlearnedRollout(Rollout):
    """The protocol's episodes, with a function of the running episode in place of a model; as many slots as there are
    environments. Raises MuvlaError for `expert` where the task has none."""

    def __init__(self, name: str, protocol: Protocol, make_env: Callable[[], gymnasium.Env], environments: int):
        if name not in unlearned(protocol):
            known = ", ".join(unlearned(protocol)) or "none"
            raise MuvlaError(
                "baseline",
                got=f"{name} of {protocol.task.name}",
                expected=f"one of {known}",
                remedy="choose another task, or leave it out",
            )
        self._act, self.protocol, self.intervention, self.branches = ACTIONS[name], protocol, None, None
        self.slots = [RunningEpisode() for _ in range(environments)]
        self._tick_seconds = 0.0
        self._open(make_env, environments)

    def _require_fit(self, env: WorkerEnv | LocalEnv) -> None:
        """It acts in whatever space there is."""

    def _tick(self, ready: list[RunningEpisode]) -> None:
        for slot in ready:
            slot.chunk, slot.chunk_age = self._act(slot)[None], 0

    def _is_due(self, slot: RunningEpisode) -> bool:
        return True

    def _check_episode(self, slot: RunningEpisode) -> None:
        """There is no memory to check."""


def memoryless_ideal(protocol: Protocol) -> dict[str, float | None]:
    """Reading → what no policy without memory can exceed in expectation; None where that is not known. Of success it is
    known where the first choice ends the episode, as in the recall suite: elsewhere a policy may touch one object after
    the other."""
    bound = chance(protocol)
    ends = task_info(protocol.task.name).ends_at_choice
    return {"touch": None if bound is None else 1.0, "choice": bound, "success": bound if ends else None}
