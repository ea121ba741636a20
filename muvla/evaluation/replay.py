"""Episodes of a rollout, step by step: to compare it with its row, to draw it, to see why nothing succeeds.

Legend: T steps, V cameras, h×w image, Q proprio dim, A action dim, m memory, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from muvla.data.normalization import Statistics
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.evaluation.records import ADDED_LATER, EpisodeRow
from muvla.evaluation.rollout import Outcome, Rollout, RunningEpisode

CLIPPED, OUTSIDE = 0.5, 0.5  # shares from which on something is likely to be wrong
MOVED = 1e-3  # of proprio, in a step
MARGIN = 0.5  # of a range, beyond which a number does not belong to it


@dataclass(frozen=True)
class Step:
    """What came out of the policy, and where the robot was."""

    proprio: np.ndarray  # (Q,)
    phase: Phase
    action: np.ndarray  # (A,) as the policy gave it, not yet clipped
    memory: np.ndarray  # (m, D) read at this step's tick, or at the last one


@dataclass(frozen=True)
class ReplayedEpisode:
    """An episode of T steps."""

    outcome: Outcome
    steps: list[Step]  # T
    frames: list[np.ndarray]  # T + 1 times (V, h, w, 3) uint8: before every step, and after the last


class WatchedRollout(Rollout):
    """A rollout that keeps every step. It computes what any other computes."""

    def watch(self, seed: int, check_stop: Callable[[], None] = lambda: None) -> ReplayedEpisode:
        """The episode of this seed; `check_stop` is called before every step and may raise. Raises MuvlaError if its
        environment fails."""
        return self.watch_all([seed], check_stop)[seed]

    def watch_all(
        self, seeds: Sequence[int], check_stop: Callable[[], None] = lambda: None
    ) -> dict[int, ReplayedEpisode]:
        """The same of several episodes, by seed."""
        self._check_stop, self._steps, self._frames, watched = check_stop, {}, {}, {}

        def keep(outcome: Outcome) -> None:
            seed = outcome.seed
            if outcome.error:
                raise MuvlaError(
                    f"episode seed {seed}",
                    got=outcome.error,
                    expected="an episode without an error",
                    remedy="run it again",
                )
            self._keep_frame(next(slot for slot in self.slots if slot.seed == seed))
            watched[seed] = ReplayedEpisode(outcome, self._steps[seed], self._frames[seed])

        self.run(seeds, keep)
        return {seed: watched[seed] for seed in seeds}

    def _start_step(self, slot: RunningEpisode) -> None:
        self._check_stop()
        if slot.step == 0:  # also where a second attempt begins
            self._steps[slot.seed], self._frames[slot.seed] = [], []
        self._keep_frame(slot)
        action, memory = slot.next_action.copy(), slot.tokens.float().cpu().numpy()
        self._steps[slot.seed].append(Step(slot.observation["proprio"], slot.info["phase"], action, memory))
        super()._start_step(slot)

    def _keep_frame(self, slot: RunningEpisode) -> None:
        self._frames[slot.seed].append(slot.observation["images"].copy())


def require_same(watched: ReplayedEpisode, row: EpisodeRow) -> None:
    """Raises MuvlaError if the episode did not end as its row says."""
    untold = {name for name in ADDED_LATER if getattr(row, name) is None}  # by rows of before
    differences = {
        name: (value, getattr(row, name))
        for name, value in watched.outcome.info.items()
        if name not in untold and value != getattr(row, name)
    }
    if differences:
        raise MuvlaError(
            f"episode seed {row.seed}",
            got=", ".join(f"{name} {ours}" for name, (ours, _) in differences.items()),
            expected=", ".join(f"{name} {theirs}" for name, (_, theirs) in differences.items()) + ", as in its row",
            remedy=f"run it with the code, device and threads that provenance {row.provenance} of the run names",
        )


def checks(watched: ReplayedEpisode, statistics: Statistics, proprio_told: bool) -> list[str]:
    """Lines on what makes all episodes fail through no fault of the policy's: a renderer that does not follow the
    physics, actions that are clipped, a scale that is another robot's, of which a policy that is told no proprio may
    have none."""
    steps = watched.steps
    proprio = np.stack([step.proprio for step in steps]).astype(np.float64)
    moved = np.flatnonzero((np.abs(np.diff(proprio, axis=0)) > MOVED).any(axis=1))
    drawn = sum(not np.array_equal(watched.frames[t], watched.frames[t + 1]) for t in moved)
    clipped = float(np.mean([np.abs(step.action) > 1 for step in steps]))
    lines = [
        _line(
            drawn == len(moved),
            f"the pictures changed in {drawn} of {len(moved)} steps in which the robot moved",
            "the renderer does not follow the physics",
        ),
        _line(
            clipped < CLIPPED,
            f"{clipped:.2f} of the action's numbers were clipped to ±1",
            "the actions have another scale than the environment's",
        ),
    ]
    if proprio_told:
        low, high = np.asarray(statistics.proprio_low), np.asarray(statistics.proprio_high)
        margin = MARGIN * (high - low)
        outside = float(np.mean((proprio < low - margin) | (proprio > high + margin)))
        lines.append(
            _line(
                outside < OUTSIDE,
                f"{outside:.2f} of the proprio numbers lay far outside the statistics' range",
                "the statistics are of another robot or dataset: look at the key",
            )
        )
    return lines


def _line(well: bool, what: str, else_likely: str) -> str:
    return f"  ok    {what}" if well else f"  LOOK  {what}: {else_likely}"
