"""Actions of Bridge and Fractal as OpenVLA, CogACT and MemoryVLA are trained on them.

A standard takes an episode's actions and states as stored, and returns the actions and the steps that are left. The
gripper becomes 0 (closed) to 1 (open).

Legend: T steps, A action dim (7), Q proprio dim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

OPEN, CLOSED = 0.95, 0.05  # beyond these a gripper number is definite
MOVES = 0.1  # size of a relative command that opens or closes


def bridge(action: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, slice]:
    """Bridge V2: the first step, whose action is zero, is left out, and so is the last, which has no next state.

    Args:
        action: (T, 7), of which the gripper is used; T is at least 3.
        state: (T, Q), the pose in the first six numbers.
    """
    action = np.concatenate([action[1:, :6], binarize(action[1:, 6])[:, None]], axis=1)
    return relabel(action, state[1:]), slice(1, -1)


def fractal(action: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, slice]:
    """Fractal (RT-1): relative gripper commands become absolute.

    Args:
        action: (T, 7).
        state: (T, Q), unused.
    """
    return np.concatenate([action[:, :6], accumulate(action[:, 6])[:, None]], axis=1), slice(None)


def relabel(action: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Returns (T − 1, 7): the pose change that the robot reached, and the commanded gripper."""
    return np.concatenate([np.diff(state[:, :6], axis=0), action[:-1, 6:]], axis=1)


def binarize(gripper: np.ndarray) -> np.ndarray:
    """Returns (T,): 0 or 1; a number between takes the next definite value.

    After the last definite value the gripper keeps its last number, as published.
    """
    result, value = np.empty_like(gripper), gripper[-1]
    for t in reversed(range(len(gripper))):
        if gripper[t] > OPEN or gripper[t] < CLOSED:
            value = float(gripper[t] > OPEN)
        result[t] = value
    return result


def accumulate(command: np.ndarray) -> np.ndarray:
    """Returns (T,) 0 or 1 from commands that close (positive), open (negative) or keep (near 0).

    Before the first command the gripper is in the state that the command changes; without a command it is half open.
    """
    moves = np.where(command > MOVES, -1, np.where(command < -MOVES, 1, 0))
    first = moves[np.argmax(moves != 0)]
    result, value = np.empty_like(command), -first
    for t, move in enumerate(moves):
        value = move if move != 0 else value
        result[t] = value / 2 + 0.5
    return result


Standard = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, slice]]
STANDARDS: dict[str, Standard] = {"bridge": bridge, "fractal": fractal}
LEAST_STEPS = 3  # of a Bridge episode; shorter ones have no step left
