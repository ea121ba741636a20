"""The times of a store's entries in another order. The contents stay where they are."""

from __future__ import annotations

import torch

from muvla.interventions.context import Context
from muvla.interventions.kind import STATES, InterventionKind
from muvla.interventions.permutation import IDENTITY, identity_argument
from muvla.memory.contract import State


def shuffle_time(state: State, context: Context) -> State:
    """The times of the entries permuted by one cycle, so that no entry keeps its time (M 12.5).

    The streams of a bank share the order. A single entry keeps its time.
    """
    if context.argument == IDENTITY:
        return state
    count = len(next(iter(state.values())))
    ring = torch.randperm(count, generator=context.generator("shuffle_time"))
    order = torch.empty_like(ring)
    order[ring] = ring.roll(1)
    return {name: leaf[order.to(leaf.device)] for name, leaf in state.items()}


SHUFFLE_TIME = InterventionKind(
    "shuffle_time",
    "before_read",
    shuffle_time,
    "keeps",
    identity_argument,
    identity=IDENTITY,
    sites=STATES,
    on_times=True,
)
