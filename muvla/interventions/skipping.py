"""The read left out: no MEMORY token is in the sequence, and the action head reads its own states."""

from __future__ import annotations

from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.memory.contract import State


def skip_read(state: State, context: Context) -> State:
    """The tick reads what `none` reads (M 12.5). The store is searched and written as without the intervention.

    For a mechanism whose tokens are its state, `skip_read` equals `drop`: tokens that are not in the sequence keep
    their value.
    """
    return state


SKIP_READ = InterventionKind(
    "skip_read",
    "read",
    skip_read,
    "freezes",
    sites=("read",),
    skips=True,
    unconfinable="the whole read is left out",
)
