"""Interventions with content from other episodes, which replaces the memory or is added to the memory."""

from __future__ import annotations

from collections.abc import Callable

from muvla.interventions.arguments import scale
from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.interventions.schedule import parse_schedule
from muvla.memory.contract import State

Change = Callable[[State, Context], State]
_AT_DELAY_END = parse_schedule("delay_end")
_FITTED_ON_ALL = "its decoder, its norm and its sham's right angle are of the whole state"


def _put_donor(state: State, context: Context) -> State:
    return {key: context.donor[key].to(leaf) for key, leaf in state.items()}


def _add_donor(state: State, context: Context) -> State:
    return {key: leaf + context.donor[key].to(leaf) for key, leaf in state.items()}


def mean(state: State, context: Context) -> State:
    """The memory replaced by the mean over the other episodes at the same phase and step."""
    return _put_donor(state, context)


def transplant(state: State, context: Context) -> State:
    """The memory replaced by the memory of an episode with another target."""
    return _put_donor(state, context)


def transplant_same(state: State, context: Context) -> State:
    """The memory replaced by the memory of another episode with the same target: a sham."""
    return _put_donor(state, context)


def transplant_self(state: State, context: Context) -> State:
    """The memory replaced by the memory of the episode's plain run: a sham without effect."""
    return _put_donor(state, context)


def direction(state: State, context: Context) -> State:
    """The memory moved along a linear decoder's direction towards another target."""
    return _add_donor(state, context)


def orthogonal(state: State, context: Context) -> State:
    """The memory moved by the same distance in a random direction orthogonal to `direction`: a sham."""
    return _add_donor(state, context)


def _transplant(function: Change, donor: str, shams: tuple[str, ...] = ()) -> InterventionKind:
    return InterventionKind(
        function.__name__,
        "after_write",
        function,
        "any",
        schedule=_AT_DELAY_END,
        donor=donor,
        shams=shams,
        whole_state=True,
    )


def _direction(function: Change, shams: tuple[str, ...] = ()) -> InterventionKind:
    return InterventionKind(
        function.__name__,
        "after_write",
        function,
        "any",
        scale,
        "4",
        identity=0.0,
        schedule=_AT_DELAY_END,
        donor=function.__name__,
        shams=shams,
        single_event=True,
        unconfinable=_FITTED_ON_ALL,
    )


MEAN = InterventionKind("mean", "before_read", mean, "any", donor="mean")
TRANSPLANT = _transplant(transplant, "other", ("transplant_same", "transplant_self"))
TRANSPLANT_SAME = _transplant(transplant_same, "same")
TRANSPLANT_SELF = _transplant(transplant_self, "self")
DIRECTION = _direction(direction, ("orthogonal",))
ORTHOGONAL = _direction(orthogonal)
