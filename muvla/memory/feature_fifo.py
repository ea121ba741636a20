"""The features of the last M ticks, met by the states of the action head: CronusVLA (arXiv 2506.19816).

Legend: B slots, M capacity, D width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from muvla.memory.base import where_slot
from muvla.memory.contract import Clock, Conditions, Dimensions, Retrieved, State, Units
from muvla.memory.place_config import CONDITION, PLACES
from muvla.memory.placed import Query
from muvla.memory.store_config import StoreConfig
from muvla.memory.stored import StoredMemory

PIECES = 6  # of the current feature, as published


@dataclass(frozen=True)
class FeatureFifoConfig(StoreConfig):
    """Capacity M, detachment and place; published is the place `condition`."""

    places: ClassVar[tuple[str, ...]] = (*PLACES, CONDITION)

    kind: str = "feature_fifo"
    capacity: int = 6  # M, the published value of the 7B checkpoint


class ConditionTokens(nn.Module):
    """The window of features as the published decoder is conditioned on them.

        past       W_p f_i + b_p                                     M tokens, oldest first
        current    W_c u_j + b_c,  u = GELU(W_u f + b_u) in 6 pieces  6 tokens (the modulator)

    A learned position is added to each of the M + 6 tokens.

    Args:
        capacity: M.
        width: D of the features.
        out: width of a token.
    """

    def __init__(self, capacity: int, width: int, out: int):
        super().__init__()
        piece = max(1, width // PIECES)
        self.past = nn.Linear(width, out)
        self.spread, self.current = nn.Linear(width, PIECES * piece), nn.Linear(piece, out)
        self.positions = nn.Parameter(torch.empty(capacity + PIECES, out))

    def forward(self, window: Tensor) -> Tensor:
        """(B, M + 1, D) features, the current one last → (B, M + 6, out)."""
        pieces = nn.functional.gelu(self.spread(window[:, -1])).unflatten(1, (PIECES, -1))
        return torch.cat([self.past(window[:, :-1]), self.current(pieces)], dim=1) + self.positions

    def flops(self) -> int:
        """Floating-point operations per slot."""
        past = (len(self.positions) - PIECES) * self.past.weight.numel()
        return 2 * (past + self.spread.weight.numel() + PIECES * self.current.weight.numel())


class FeatureFifo(StoredMemory):
    """A queue of the last M features f (B, D), the final state at the last TEXT row.

        window     the queue, padded on the left by its oldest feature; then the current feature    (B, M + 1, D)
        content    condition tokens of the window                                                   (B, M + 6, D)

    Published are queue, padding and condition tokens, in the place `condition`: there the content is the window, and
    the action expert makes the condition tokens. The other places are ours. With an empty queue the window holds the
    current feature alone. In the place `context` the current feature is the summary of this tick's vision and text
    (`Query`).

    Leaves: `features` (B, M, D), oldest first, and `length` (B,).
    """

    Config = FeatureFifoConfig
    config: FeatureFifoConfig

    def __init__(self, config: FeatureFifoConfig, dimensions: Dimensions):
        capacity, width = config.capacity, dimensions.width
        super().__init__(config, dimensions, entries=capacity + PIECES, width=width)
        self.tokens_of = ConditionTokens(capacity, width, width) if config.place != CONDITION else None

    @property
    def conditions(self) -> Conditions:
        windowed = self.config.place == CONDITION and self.config.is_read
        return Conditions(window=self.config.capacity + 1 if windowed else None)

    @property
    def units(self) -> Units:
        return Units("entries", self.config.capacity, ("features",))

    def init_state(self, slots: int) -> State:
        length = torch.zeros(slots, dtype=torch.int64, device=self.empty.device)
        return {"features": self.empty.new_zeros(slots, self.config.capacity, self.embedding), "length": length}

    def look_up(self, state: State, query: Query, clock: Clock) -> Retrieved:
        window = self.window(state, query.summary.to(self.empty.dtype))
        return Retrieved(window if self.tokens_of is None else self.tokens_of(window))

    def window(self, state: State, feature: Tensor) -> Tensor:
        """(B, M + 1, D): the padded queue, then the current feature (B, D)."""
        length, capacity = state["length"], self.config.capacity
        rows = torch.arange(capacity, device=length.device) - (capacity - length[:, None])
        past = state["features"][torch.arange(len(length), device=length.device)[:, None], rows.clamp(min=0)]
        past = where_slot(length > 0, past, feature[:, None].expand_as(past))
        return torch.cat([past, feature[:, None]], dim=1)

    def update(self, state: State, query: Query, clock: Clock, retrieved: Retrieved | None) -> State:
        features, length, capacity = state["features"], state["length"], self.config.capacity
        features = where_slot(length == capacity, features.roll(-1, dims=1), features)
        newest = torch.arange(capacity, device=length.device) == length.clamp(max=capacity - 1)[:, None]
        features = torch.where(newest[..., None], query.summary[:, None].to(features.dtype), features)
        return {"features": features, "length": (length + 1).clamp(max=capacity)}

    def store_flops(self) -> int:
        return 0 if self.tokens_of is None else self.tokens_of.flops()
