"""Counts of one slot's episode."""

from __future__ import annotations

from dataclasses import dataclass, field

from muvla.memory.contract import State


@dataclass
class SlotClock:
    """Counts of one slot's episode, and its past states where an intervention may need them."""

    writes: int = 0  # ticks so far; held against the environment's steps
    fired: int = 0  # ticks at which the intervention acted
    since: int = 0  # writes before the tick at which the intervention first acted
    previous: int = -1  # environment step of the last tick
    history: list[State] = field(default_factory=list)  # the state after each write, oldest first

    def start(self, step: int) -> None:
        """Begins an episode at an environment step. An episode that is entered in the middle makes up for no step that
        it has not seen."""
        self.writes, self.fired, self.since, self.previous, self.history = 0, 0, 0, step - 1, []
