"""What an intervention is: a function on the memory of one slot, at a site, on a schedule.

The function `(state, context) → state` sees leaves without their slot dimension. `muvla.recurrence` calls it slot by
slot, so that a batch computes what single episodes would.

Legend: m memory width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from muvla.envs.phases import Phase
from muvla.interventions.schedule import Schedule
from muvla.memory.base import State
from muvla.utils.rng import torch_rng

Site = Literal["before_read", "read", "after_write"]
SITES: tuple[Site, ...] = ("before_read", "read", "after_write")
Effect = Literal["moves", "freezes", "keeps", "any"]


@dataclass(frozen=True)
class Context:
    """What an intervention may know about the slot that it is applied to."""

    tick: int
    phase: Phase
    key: str
    seed: int
    history: list[State]  # the slot's states after each write of this episode, oldest first, as they were carried on
    donor: State | None = None  # the state to transplant, for interventions that take one
    initial: State = field(default_factory=dict)  # the state at an episode's start
    argument: Any = None  # the intervention's own
    since: int = 0  # place in `history` of what is written at the tick at which it first fired in this episode

    def generator(self, purpose: str, per_tick: bool = True) -> torch.Generator:
        """Keyed by (episode seed, purpose, tick): one intervention never shifts another's draws."""
        return torch_rng(self.seed, "intervention", purpose, *([self.tick] * per_tick))


@dataclass(frozen=True)
class Intervention:
    """A function on the memory, at a site, on a schedule.

    `effect` is what it must do to the tokens that are read from the second tick of an episode on: they `moves` from
    tick to tick, it `freezes` them (zeros at every tick are frozen), or it `keeps` them as the mechanism has them:
    moving if it recurs, frozen if not; or `any` of that. An evaluation that sees the opposite is no measurement. Where
    it does not act at every tick, this holds from the second one on at which it did, and of one that stops again
    nothing is asked.
    """

    name: str
    site: Site
    function: Callable[[State, Context], State]
    effect: Effect
    schedule: Schedule | None = None  # None is at every tick
    tokens: tuple[int, int] | None = None  # first and stop: these alone, and the function sees no other
    argument: Any = None
    removes: bool = False  # the function tells which tokens are not in the sequence, (m,) bool, in place of a state
    donor: str | None = None  # what it takes from other episodes
    bank: Any = None  # where they are, for one that takes from them

    def fires(self, tick: int, events: Mapping[str, int], previous: int | None = None) -> bool:
        """Whether it acts at this tick, see `Schedule.fires`."""
        return self.schedule is None or self.schedule.fires(tick, events, previous)

    @property
    def uninterrupted(self) -> bool:
        """Whether it acts at every tick once it has acted."""
        return self.schedule is None or self.schedule.uninterrupted

    def apply(self, state: State, context: Context) -> State:
        """The slot's state after it, or what it removes."""
        if self.tokens is None:
            return self.function(state, context)
        chosen = partial(_part, tokens=slice(*self.tokens))
        donor = None if context.donor is None else chosen(context.donor)
        history = [chosen(past) for past in context.history]
        part = self.function(
            chosen(state), replace(context, history=history, donor=donor, initial=chosen(context.initial))
        )
        first, stop = self.tokens
        rest = {name: torch.zeros(len(leaf), dtype=torch.bool) for name, leaf in state.items()}
        rest = rest if self.removes else state
        return {name: torch.cat([leaf[:first], part[name], leaf[stop:]]) for name, leaf in rest.items()}


def _part(state: State, tokens: slice) -> State:
    return {name: leaf[tokens] for name, leaf in state.items()}
