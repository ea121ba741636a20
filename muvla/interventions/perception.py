"""Zeros in place of the perceptual tokens that an action expert reads (MemoryVLA spec 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

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


def with_zero_perception(names: Iterable[str], perceives: bool) -> tuple[str, ...]:
    """Returns the interventions of a report: `zero_perception` comes last, for a policy with perceptual tokens alone.

    As released, the attention to perceptual tokens stays a mean over tokens (MemoryVLA spec 3.1). Every report on such
    a policy therefore says what the policy does without these tokens.

    Args:
        names: canonical names.
        perceives: True if an action expert of the policy reads perceptual tokens.
    """
    others = tuple(name for name in names if name != ZERO_PERCEPTION.name)
    return (*others, ZERO_PERCEPTION.name) if perceives else others
