"""An intervention: a function on the memory of one slot, at a site, on a schedule.

The function `(state, context) → state` sees leaves without their slot dimension. `muvla.recurrence` calls it slot by
slot, so that a batch computes what single episodes would.

A whole-state intervention (`whole_state`) puts another state and moves all leaves together, lengths and times included.
Every other intervention is element-wise: it sees the valid entries of the float leaves alone.

Legend: m MEMORY tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from muvla.interventions.context import Context
from muvla.interventions.donors.assignment import DonorAssignment
from muvla.interventions.schedule import Schedule
from muvla.interventions.selection import Rows, put_rows, take_rows
from muvla.memory.contract import State

Site = Literal["before_read", "read", "after_write"]
SITES: tuple[Site, ...] = ("before_read", "read", "after_write")
Effect = Literal["moves", "freezes", "keeps", "any"]


class DonorSource(Protocol):
    """Recorded episodes, as `muvla.interventions.donors.bank.DonorBank`."""

    def assign(self, seed: int, info: Mapping[str, Any]) -> DonorAssignment:
        """Returns what the episode of this seed gets."""

    def require_spec(self, spec: Mapping[str, tuple[int, ...]]) -> None:
        """Raises MuvlaError where a donor's state has other leaves or shapes than `spec`."""


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
    on_times: bool = False  # it sees the times of the valid units, in place of their content
    on_perception: bool = False  # it sees the perceptual tokens of an action expert alone
    skips: bool = False  # the whole read is left out

    def fires(self, tick: int, events: Mapping[str, int], previous: int | None = None) -> bool:
        """True where it acts at this tick, see `Schedule.fires`."""
        return self.schedule is None or self.schedule.fires(tick, events, previous)

    @property
    def uninterrupted(self) -> bool:
        """True where it acts at every tick once it has acted."""
        return self.schedule is None or self.schedule.uninterrupted

    def apply(self, state: State, context: Context) -> State:
        """The slot's state after the intervention."""
        rows = context.selection.rows(state, self.tokens, self.whole_state, self.on_times)
        if not any(chosen is None or isinstance(chosen, slice) or len(chosen) for chosen in rows.values()):
            return state  # no unit holds content yet
        part = self._call(state, context, rows)
        return state | {name: put_rows(state[name], rows[name], part[name]) for name in rows}

    def removed(self, state: State, context: Context) -> Tensor:
        """(m,) bool, the MEMORY tokens that leave the sequence; `state` holds the leaf `tokens`."""
        rows = context.selection.rows(state, self.tokens, whole_state=False)
        nothing = torch.zeros(len(state["tokens"]), dtype=torch.bool, device=state["tokens"].device)
        return put_rows(nothing, rows["tokens"], self._call(state, context, rows)["tokens"])

    def _call(self, state: State, context: Context, rows: dict[str, Rows]) -> State:
        if rows.keys() == state.keys() and all(chosen is None for chosen in rows.values()):
            return self.function(state, context)
        donor = None if context.donor is None else take_rows(context.donor, rows)
        history = [take_rows(past, rows) for past in context.history]
        initial = take_rows(context.initial, rows)
        return self.function(take_rows(state, rows), replace(context, history=history, donor=donor, initial=initial))
