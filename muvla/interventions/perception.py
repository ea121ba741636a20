"""Zeros in place of the perceptual tokens that an action expert reads (MemoryVLA spec 3.1)."""

from __future__ import annotations

import torch

from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.memory.contract import State


def zero_perception(state: State, context: Context) -> State:
    """The perceptual tokens replaced by zeros; the cognition token stays."""
    return {name: torch.zeros_like(leaf) for name, leaf in state.items()}


ZERO_PERCEPTION = InterventionKind(
    "zero_perception",
    "read",
    zero_perception,
    "any",
    sites=("read",),
    on_perception=True,
    unconfinable="it acts on all perceptual tokens",
)
