"""Another state of the same episode in place of the memory: zeros, the initial state, or an earlier state."""

from __future__ import annotations

import torch

from muvla.interventions.arguments import natural_number
from muvla.interventions.context import Context
from muvla.interventions.kind import STATES, InterventionKind
from muvla.memory.contract import State


def zero(state: State, context: Context) -> State:
    """The memory replaced by zeros; the tokens stay in the sequence."""
    return {key: torch.zeros_like(leaf) for key, leaf in state.items()}


def empty(state: State, context: Context) -> State:
    """The memory back at its initial state, as if the episode began with the next tick (spec 7).

    The write of this tick is lost.
    """
    return context.initial


def freeze_first(state: State, context: Context) -> State:
    """The memory locked to M₁, the output of the episode's first step, from t = 1 on (spec 7)."""
    return context.history[0] if context.history else state


def freeze(state: State, context: Context) -> State:
    """The memory locked to the write of the first tick at which the intervention fires.

    `freeze@0..` equals `freeze_first`.
    """
    return context.history[context.since] if context.since < len(context.history) else state


def stale(state: State, context: Context) -> State:
    """The memory of d ticks ago, or the initial memory before tick d."""
    if context.argument == 0:
        return state
    past = [context.initial, *context.history]
    return past[max(0, len(past) - 1 - context.argument)]


ZERO = InterventionKind("zero", "before_read", zero, "freezes")
EMPTY = InterventionKind("empty", "after_write", empty, "freezes", sites=STATES, whole_state=True)
FREEZE_FIRST = InterventionKind(
    "freeze_first", "after_write", freeze_first, "freezes", sites=STATES, whole_state=True, locks=True
)
FREEZE = InterventionKind(
    "freeze",
    "after_write",
    freeze,
    "freezes",
    sites=STATES,
    whole_state=True,
    locks=True,
    needs_lasting_schedule=True,
)
STALE = InterventionKind(
    "stale",
    "before_read",
    stale,
    "any",
    natural_number,
    "2",
    identity=0,
    sites=("before_read",),  # the history holds what was read
    whole_state=True,
)
