"""MEMORY tokens taken out of the sequence. The other tokens keep their positions."""

from __future__ import annotations

import torch

from muvla.interventions.arguments import natural_number
from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.memory.contract import State


def drop(state: State, context: Context) -> State:
    """All memory tokens removed from the sequence; text and actions keep their positions."""
    return {key: torch.ones(len(leaf), dtype=torch.bool) for key, leaf in state.items()}


def lesion(state: State, context: Context) -> State:
    """Memory token i removed from the sequence."""
    return {key: torch.arange(len(leaf)) == context.argument for key, leaf in state.items()}


DROP = InterventionKind("drop", "read", drop, "freezes", sites=("read",), removes=True)
LESION = InterventionKind(
    "lesion",
    "read",
    lesion,
    "any",
    natural_number,
    "0",
    sites=("read",),
    removes=True,
    argument_is_token=True,
    unconfinable="its argument is the token",
)
