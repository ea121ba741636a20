"""Replayed episodes: run again, step by step, to compare them with their rows and to draw them.

Legend: T steps, V cameras, h×w image, Q proprio dim, A action dim, m memory, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np

from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.evaluation.actor import Actor
from muvla.evaluation.episode import Outcome, RunningEpisode
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.records import ADDED_LATER, EpisodeRow
from muvla.evaluation.rollout import Rollout


@dataclass(frozen=True)
class Step:
    """The robot and the actor's output before one step of the environment."""

    proprio: np.ndarray  # (Q,)
    phase: Phase
    action: np.ndarray  # (A,) as the actor chose it, not clipped yet
    memory: np.ndarray  # (m, D) read at this step's tick, or at the last one; (0, 0) for an actor without memory


@dataclass(frozen=True)
class ReplayedEpisode:
    """An episode of T steps."""

    outcome: Outcome
    steps: list[Step]  # T
    frames: list[np.ndarray]  # T + 1 times (V, h, w, 3) uint8: before every step, and after the last


class StepRecorder(Recorder):
    """Records every step and frame of every episode."""

    def __init__(self):
        self.episodes: dict[int, ReplayedEpisode] = {}  # by seed; those that ended, with or without an error
        self._steps: dict[int, list[Step]] = {}
        self._frames: dict[int, list[np.ndarray]] = {}

    def episode_begins(self, episode: RunningEpisode) -> None:
        self._steps[episode.seed], self._frames[episode.seed] = [], []

    def before_step(self, episode: RunningEpisode) -> None:
        self._frames[episode.seed].append(episode.observation["images"].copy())
        memory = np.zeros((0, 0)) if episode.tokens is None else episode.tokens.float().cpu().numpy()
        step = Step(episode.observation["proprio"], episode.info["phase"], episode.next_action.copy(), memory)
        self._steps[episode.seed].append(step)

    def episode_ends(self, episode: RunningEpisode, outcome: Outcome) -> None:
        seed = outcome.seed
        if outcome.error is None:
            self._frames[seed].append(episode.observation["images"].copy())
        self.episodes[seed] = ReplayedEpisode(outcome, self._steps.pop(seed), self._frames.pop(seed))


def replay(
    actor: Actor,
    make_env: Callable[[], gymnasium.Env],
    seeds: Sequence[int],
    environments: int | None = None,
    check_stop: Callable[[], None] = lambda: None,
    recorders: Sequence[Recorder] = (),
) -> dict[int, ReplayedEpisode]:
    """Run the episodes of these seeds and return them by seed.

    Args:
        actor: must play every episode from its first step (no prefix cache).
        make_env: opens one environment.
        seeds: of the episodes.
        environments: side by side; by default one per slot of the actor.
        check_stop: called before the actor acts; it may raise.
        recorders: more recorders of the same episodes.

    Raises:
        MuvlaError: an environment failed.
    """
    steps = StepRecorder()
    rollout = Rollout(actor, make_env, (steps, *recorders), environments)
    try:
        rollout.run(seeds, _require_no_error, check_stop)
    finally:
        rollout.close()
    return {seed: steps.episodes[seed] for seed in seeds}


def _require_no_error(outcome: Outcome) -> None:
    if outcome.error:
        raise MuvlaError(
            f"episode seed {outcome.seed}",
            got=outcome.error,
            expected="an episode without an error",
            remedy="run the episode again",
        )


def require_same(replayed: ReplayedEpisode, row: EpisodeRow) -> None:
    """Raise MuvlaError if the replayed episode ended otherwise than its row says."""
    missing = {name for name in ADDED_LATER if getattr(row, name) is None}  # fields that older rows lack
    differences = {
        name: (value, getattr(row, name))
        for name, value in replayed.outcome.info.items()
        if name not in missing and value != getattr(row, name)
    }
    if differences:
        raise MuvlaError(
            f"episode seed {row.seed}",
            got=", ".join(f"{name} {ours}" for name, (ours, _) in differences.items()),
            expected=", ".join(f"{name} {theirs}" for name, (_, theirs) in differences.items()) + ", as in its row",
            remedy=f"run it with the code, device and threads that provenance {row.provenance} of the run names",
        )
