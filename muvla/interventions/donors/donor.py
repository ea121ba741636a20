"""A recorded episode, and the episode that gets something of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from muvla.memory.contract import State

Lengths = tuple[int, int, int]  # steps of blank, cue and delay


@dataclass(frozen=True)
class Donor:
    """An episode whose memory was recorded by a plain rollout."""

    seed: int
    remembered: int | None  # identity or target
    lengths: Lengths
    states: dict[int, State]  # by step, on the CPU; empty where the episode ends before the schedule fires

    @property
    def by_place(self) -> dict[tuple[int, int], State]:
        """(phase, step into it) → state."""
        return {place_of(self.lengths, step): state for step, state in self.states.items()}


@dataclass(frozen=True)
class Recipient:
    """An episode that gets something."""

    seed: int
    remembered: int | None  # identity or target
    lengths: Lengths


def remembered(info: Mapping[str, Any]) -> int | None:
    """The content that an episode's memory is to hold.

    The target's identity where the task has one (a colour, which lies elsewhere in every episode), else the target.
    """
    return info["target"] if info.get("identity") is None else info["identity"]


def lengths_of(info: Mapping[str, Any]) -> Lengths:
    return tuple(info.get(f"{name}_length") or 0 for name in ("blank", "cue", "delay"))


def place_of(lengths: Lengths, step: int) -> tuple[int, int]:
    """(index of the phase, step into it)."""
    ends = list(accumulate(lengths))
    phase = bisect_right(ends, step)
    return phase, step - (ends[phase - 1] if phase else 0)
