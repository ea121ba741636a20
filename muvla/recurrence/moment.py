"""When and where in a batch a tick happens."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.envs.phases import Phase
from muvla.memory.contract import State


@dataclass(frozen=True)
class Moment:
    """One tick of a batch; every list has one entry per slot."""

    tick: list[int]  # environment step of the slot's episode
    phase: list[Phase]
    key: list[str]  # identity of the slot's episode
    seed: list[int]  # of the slot's episode; keys every random draw
    donor: list[State | None] | None = None  # state that an intervention may transplant
    events: list[dict[str, int]] | None = None  # step of each phase event of the episode
    time: list[int] | None = None  # what the memory takes for `tick`, where a protocol declares another clock
