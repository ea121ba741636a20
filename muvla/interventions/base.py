"""An intervention: a function on the memory of one slot, at a site, on a schedule.

The function `(state, context) → state` sees leaves without their slot dimension. `muvla.recurrence` calls it slot by
slot, so that a batch computes what single episodes would.

A whole-state intervention (`whole_state`) puts another state and moves all leaves together, lengths and times included.
Every other intervention is element-wise: it sees the valid entries of the float leaves alone.

Legend: m MEMORY tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from muvla.envs.phases import Phase
from muvla.interventions.donors.assignment import DonorAssignment
from muvla.interventions.schedule import Schedule
from muvla.memory.contract import State, Units
from muvla.utils.rng import torch_rng

Site = Literal["before_read", "read", "after_write"]
SITES: tuple[Site, ...] = ("before_read", "read", "after_write")
Effect = Literal["moves", "freezes", "keeps", "any"]
Rows = slice | Tensor | None  # rows of a leaf, as a slice or as indices; None is the whole leaf


@dataclass(frozen=True)
class Selection:
    """The units of one slot's state that an intervention may act on."""

    units: Units
    valid: Tensor | None = None  # (count,) bool, the units that hold content; None: all

    def rows(self, state: State, chosen: tuple[int, int] | None, whole_state: bool) -> dict[str, Rows]:
        """Leaf → the rows of it that the intervention acts on, None for the whole leaf; leaves left out stay.

        Args:
            state: one slot's leaves.
            chosen: first and stop of `[a:b]`, None for all units.
            whole_state: False for an element-wise intervention.
        """
        leaves = [name for name, leaf in state.items() if whole_state or leaf.is_floating_point()]
        if chosen is not None:
            leaves = [name for name in leaves if name in self.units.leaves]
        rows: Rows = None if chosen is None else slice(*chosen)
        if self.valid is not None and not whole_state:
            first, stop = chosen or (0, self.units.count)
            index = self.valid.nonzero().flatten()
            rows = index[(index >= first) & (index < stop)]
        return {name: rows if name in self.units.leaves else None for name in leaves}


@dataclass(frozen=True)
class Context:
    """The facts that an intervention may use about the slot that it acts on."""

    tick: int
    phase: Phase
    key: str
    seed: int
    history: list[State]  # the slot's states after each write of this episode, oldest first, as they were carried on
    donor: State | None = None  # the state to transplant, for interventions that take one
    initial: State = field(default_factory=dict)  # the state at an episode's start
    argument: Any = None  # of the intervention
    since: int = 0  # index in `history` of the write at the tick at which it first fired in this episode
    selection: Selection = Selection(Units())  # what `[a:b]` counts in this state

    def generator(self, purpose: str, per_tick: bool = True) -> torch.Generator:
        """Keyed by (episode seed, purpose, tick): one intervention never shifts another's draws."""
        return torch_rng(self.seed, "intervention", purpose, *([self.tick] * per_tick))


class DonorSource(Protocol):
    """Recorded episodes, as `muvla.interventions.donors.bank.DonorBank`."""

    def assign(self, seed: int, info: Mapping[str, Any]) -> DonorAssignment:
        """Returns what the episode of this seed gets."""


@dataclass(frozen=True)
class Intervention:
    """A function on the memory, at a site, on a schedule.

    `effect` declares what the intervention does to what is read from the second tick of an episode on. An evaluation
    that sees the opposite raises NotAMeasurement.

    | effect | what is read |
    |---|---|
    | `moves` | changes from tick to tick |
    | `freezes` | stays the same (zeros at every tick are frozen) |
    | `keeps` | changes where the mechanism recurs, else stays the same |
    | `any` | is not checked |

    An intervention that does not act at every tick is checked from the second tick on at which it acts; an intervention
    that stops again is not checked.
    """

    name: str
    site: Site
    function: Callable[[State, Context], State]
    effect: Effect
    schedule: Schedule | None = None  # None is at every tick
    tokens: tuple[int, int] | None = None  # first and stop of the units that it acts on; None is all
    argument: Any = None
    removes: bool = False  # the function returns which tokens leave the sequence, (m,) bool, in place of a state
    donor: str | None = None  # what it takes from other episodes
    bank: DonorSource | None = None  # the recorded episodes
    whole_state: bool = False  # it puts a whole state: all leaves move together
    kind_name: str = ""  # of its kind; empty for a function without a name
    least_units: int = 0  # units that the memory must have
    locks: bool = False  # the memory stays locked over several ticks

    def fires(self, tick: int, events: Mapping[str, int], previous: int | None = None) -> bool:
        """True where it acts at this tick, see `Schedule.fires`."""
        return self.schedule is None or self.schedule.fires(tick, events, previous)

    @property
    def uninterrupted(self) -> bool:
        """True where it acts at every tick once it has acted."""
        return self.schedule is None or self.schedule.uninterrupted

    def apply(self, state: State, context: Context) -> State:
        """The slot's state after the intervention."""
        rows = context.selection.rows(state, self.tokens, self.whole_state)
        part = self._call(state, context, rows)
        return state | {name: _put(state[name], rows[name], part[name]) for name in rows}

    def removed(self, state: State, context: Context) -> Tensor:
        """(m,) bool, the MEMORY tokens that leave the sequence; `state` holds the leaf `tokens`."""
        rows = context.selection.rows(state, self.tokens, whole_state=False)
        nothing = torch.zeros(len(state["tokens"]), dtype=torch.bool, device=state["tokens"].device)
        return _put(nothing, rows["tokens"], self._call(state, context, rows)["tokens"])

    def _call(self, state: State, context: Context, rows: dict[str, Rows]) -> State:
        if rows.keys() == state.keys() and all(chosen is None for chosen in rows.values()):
            return self.function(state, context)
        donor = None if context.donor is None else _part(context.donor, rows)
        history = [_part(past, rows) for past in context.history]
        initial = _part(context.initial, rows)
        return self.function(_part(state, rows), replace(context, history=history, donor=donor, initial=initial))


def _part(state: State, rows: dict[str, Rows]) -> State:
    return {
        name: state[name] if chosen is None else state[name][chosen] for name, chosen in rows.items() if name in state
    }


def _put(leaf: Tensor, rows: Rows, part: Tensor) -> Tensor:
    """The leaf with `part` at `rows`."""
    if rows is None:
        return part
    result = leaf.clone()
    result[rows] = part.to(result)
    return result
