"""Content from other episodes: in place of the memory, or added to it."""

from __future__ import annotations

from muvla.interventions.arguments import scale
from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.interventions.schedule import parse_schedule
from muvla.memory.contract import State

_AT_DELAY_END = parse_schedule("delay_end")
_FITTED_ON_ALL = "its decoder, its norm and its sham's right angle are of the whole state"


def put_donor(state: State, context: Context) -> State:
    """The memory replaced by the donor's."""
    return {key: context.donor[key].to(leaf) for key, leaf in state.items()}


def add_donor(state: State, context: Context) -> State:
    """The memory plus what the donors give."""
    return {key: leaf + context.donor[key].to(leaf) for key, leaf in state.items()}


def _transplant(name: str, donor: str, shams: tuple[str, ...] = ()) -> InterventionKind:
    return InterventionKind(
        name,
        "after_write",
        put_donor,
        "any",
        schedule=_AT_DELAY_END,
        donor=donor,
        shams=shams,
        whole_state=True,
    )


def _direction(name: str, shams: tuple[str, ...] = ()) -> InterventionKind:
    return InterventionKind(
        name,
        "after_write",
        add_donor,
        "any",
        scale,
        "4",
        identity=0.0,
        schedule=_AT_DELAY_END,
        donor=name,
        shams=shams,
        single_event=True,
        unconfinable=_FITTED_ON_ALL,
    )


MEAN = InterventionKind("mean", "before_read", put_donor, "any", donor="mean")
TRANSPLANT = _transplant("transplant", "other", ("transplant_same", "transplant_self"))
TRANSPLANT_SAME = _transplant("transplant_same", "same")
TRANSPLANT_SELF = _transplant("transplant_self", "self")
DIRECTION = _direction("direction", ("orthogonal",))
ORTHOGONAL = _direction("orthogonal")
