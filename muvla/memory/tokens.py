"""Carried MEMORY tokens (μVLA), and the dummy that looks the same and remembers nothing.

Legend: B slots, m memory width, D width, α blend.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from muvla.memory.base import Memory, State


class _LearnedTokens(Memory):
    """m learned vectors of width D, normal(0, init_std) at the start (spec 2.1)."""

    def __init__(self, width: int, embedding: int, init_std: float):
        super().__init__(width, embedding)
        self.init_std = init_std
        self.initial = nn.Parameter(torch.empty(width, embedding))

    def initialise_parameters(self, generator_of: Callable[[str], torch.Generator]) -> None:
        # Row by row: m = 4 and m = 8 share their first four tokens, so widening the memory changes nothing but its
        # width.
        for i, row in enumerate(self.initial):
            row.normal_(0.0, self.init_std, generator=generator_of(f"initial.{i}"))

    def init_state(self, slots: int) -> State:
        return {"tokens": self.initial.expand(slots, -1, -1)}

    def read(self, state: State) -> Tensor:
        return state["tokens"]


class TokenMemory(_LearnedTokens):
    """Reads its state verbatim and writes M' = α·out + (1−α)·M (spec 2.2, 2.5).

    α = 1 is the published TBPTT write. α < 1 is the published EMA when the trainer truncates at every tick (K = 1);
    with K > 1 it is the crossing that the paper lacks.
    """

    recurrent = True

    def __init__(self, width: int, embedding: int, init_std: float, alpha: float):
        super().__init__(width, embedding, init_std)
        self.alpha = alpha

    def write(self, state: State, out: Tensor) -> State:
        if self.alpha == 1.0:  # not only cheaper: 0·M would turn a non-finite M into NaN
            return {"tokens": out}
        return {"tokens": self.alpha * out + (1 - self.alpha) * state["tokens"]}


class DummyMemory(_LearnedTokens):
    """The initial tokens at every tick: bit-identical to `TokenMemory` reset at every tick, gradients included, because
    `muvla.recurrence` resets at every tick what does not recur."""

    recurrent = False

    def write(self, state: State, out: Tensor) -> State:
        return self.init_state(len(out))
