"""The tokens of a memory in another order."""

from __future__ import annotations

import torch

from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.memory.contract import State

IDENTITY = "identity"  # the argument with which nothing changes


def permute_tokens(state: State, context: Context) -> State:
    """The tokens in another order, in which no token keeps its place.

    An episode keeps its order at every tick.
    """
    if context.argument == IDENTITY:
        return state
    m = len(next(iter(state.values())))
    ring = torch.randperm(m, generator=context.generator("permute_tokens", per_tick=False))
    order = torch.empty_like(ring)
    order[ring] = ring.roll(1)  # one cycle through all tokens has no fixed point
    return {key: leaf[order.to(leaf.device)] for key, leaf in state.items()}


def identity_argument(text: str) -> str:
    """Reads nothing, or the argument with which nothing changes."""
    if text not in ("", IDENTITY):
        raise ValueError(f"nothing, or {IDENTITY}")
    return text


PERMUTE_TOKENS = InterventionKind(
    "permute_tokens",
    "before_read",
    permute_tokens,
    "keeps",
    identity_argument,
    identity=IDENTITY,
    needs_two_tokens=True,
)
