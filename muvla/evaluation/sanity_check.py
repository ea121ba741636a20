"""Sanity checks on a replayed episode, for an evaluation in which nothing succeeded.

The checks look for faults outside the policy: a renderer that does not follow the physics, actions or proprioception
on another scale than the environment's.
"""

from __future__ import annotations

import numpy as np

from muvla.data.normalization import Statistics
from muvla.evaluation.replay import ReplayedEpisode

CLIPPED, OUTSIDE = 0.5, 0.5  # shares from which on a fault is likely
MOVED = 1e-3  # least change of a proprio number, per step, that a picture must show
MARGIN = 0.5  # of the statistics' range, beyond which a number lies outside


def episode_checks(replayed: ReplayedEpisode, statistics: Statistics, shows_proprio: bool) -> list[str]:
    """Return a line per check, each marked `ok` or `LOOK`.

    Args:
        replayed: the episode.
        statistics: scale of actions and proprioception that the policy uses.
        shows_proprio: whether the policy is shown proprioception; the statistics of a policy that is not may have no
            scale for it.
    """
    steps = replayed.steps
    proprio = np.stack([step.proprio for step in steps]).astype(np.float64)
    moved = np.flatnonzero((np.abs(np.diff(proprio, axis=0)) > MOVED).any(axis=1))
    drawn = sum(not np.array_equal(replayed.frames[t], replayed.frames[t + 1]) for t in moved)
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
    if shows_proprio:
        low, high = np.asarray(statistics.proprio_low), np.asarray(statistics.proprio_high)
        margin = MARGIN * (high - low)
        outside = float(np.mean((proprio < low - margin) | (proprio > high + margin)))
        lines.append(
            _line(
                outside < OUTSIDE,
                f"{outside:.2f} of the proprio numbers lay far outside the statistics' range",
                "the statistics are of another robot or dataset: check the statistics' key",
            )
        )
    return lines


def _line(passes: bool, observation: str, likely_cause: str) -> str:
    return f"  ok    {observation}" if passes else f"  LOOK  {observation}: {likely_cause}"
