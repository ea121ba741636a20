"""A gated recurrent state, updated from the tick's pooled features.

Legend: B slots, h width of the state, m MEMORY tokens, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from muvla.config.validation import is_whole, require
from muvla.memory.contract import Clock, Dimensions, Retrieved, State
from muvla.memory.place_config import PlaceConfig
from muvla.memory.placed import PlacedMemory, Query


@dataclass(frozen=True)
class GruConfig(PlaceConfig):
    """Width h of the state, beside the place."""

    kind: str = "gru"
    width: int = 128  # h

    def __post_init__(self):
        super().__post_init__()
        require(
            is_whole(self.width) and self.width >= 1,
            "memory.width",
            self.width,
            "h ≥ 1",
            "set the width of the recurrent state",
        )


class GruMemory(PlacedMemory):
    """A recurrent state s (B, h), zero at an episode's start (Cho et al., arXiv 1406.1078).

        x = [summary ; mean patch]                        (B, 2D)
        z, r = σ(W_g [x ; s] + b_g)                       (B, h) each
        s' = (1 − z)·s + z·tanh(W_c [x ; r·s] + b_c)

    The place gets the whole state as a single entry: in `context`, m MEMORY tokens are linear in s.
    """

    Config = GruConfig
    config: GruConfig
    undefined_interventions: ClassVar[Mapping[str, str]] = {"noise_norm": "a recurrent state has no tokens"}

    def __init__(self, config: GruConfig, dimensions: Dimensions):
        super().__init__(config, dimensions, entries=1, width=config.width)
        inputs = 2 * dimensions.width + config.width
        self.gates = nn.Linear(inputs, 2 * config.width)
        self.candidate = nn.Linear(inputs, config.width)

    def init_state(self, slots: int) -> State:
        return {"hidden": self.gates.weight.new_zeros(slots, self.config.width)}

    def look_up(self, state: State, query: Query, clock: Clock) -> Retrieved:
        return Retrieved(state["hidden"][:, None])

    def update(self, state: State, query: Query, clock: Clock, retrieved: Retrieved | None) -> State:
        hidden = state["hidden"]
        x = torch.cat([query.summary, query.patches], dim=1).to(hidden.dtype)
        update, reset = torch.sigmoid(self.gates(torch.cat([x, hidden], dim=1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * hidden], dim=1)))
        return {"hidden": (1 - update) * hidden + update * candidate}

    def store_flops(self) -> int:
        return 2 * (self.gates.weight.numel() + self.candidate.weight.numel())
