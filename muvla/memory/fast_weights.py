"""A linear associative state with decay, written by the delta rule.

Legend: B slots, G heads, d width of a head, m MEMORY tokens, D width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from muvla.config.validation import is_whole, require
from muvla.memory.contract import Clock, Dimensions, Retrieved, State, Units
from muvla.memory.place_config import PlaceConfig
from muvla.memory.placed import PlacedMemory, Query


@dataclass(frozen=True)
class FastWeightsConfig(PlaceConfig):
    """Heads, their total width, and the decay λ, beside the place."""

    kind: str = "fast_weights"
    heads: int = 4
    width: int = 128  # G·d
    decay: float = 1.0  # λ, the share of the state that is left at the next tick

    def __post_init__(self):
        super().__post_init__()
        require(is_whole(self.heads) and self.heads >= 1, "memory.heads", self.heads, "≥ 1", "set a number of heads")
        require(
            is_whole(self.width) and self.width >= self.heads and self.width % self.heads == 0,
            "memory.width",
            self.width,
            f"a multiple of memory.heads = {self.heads}",
            "change memory.width or memory.heads",
        )
        require(0 < self.decay <= 1, "memory.decay", self.decay, "0 < λ ≤ 1", "λ = 1 lets nothing decay")


class FastWeightsMemory(PlacedMemory):
    """A matrix S (B, G, d, d) per slot, zero at an episode's start, that maps keys to values.

        k = unit(W_k x), v = W_v x, β = σ(W_β x + b)       x = [summary ; mean patch]   (B, 2D)
        S' = λS + β·(v − λS k) kᵀ                          the delta rule
        read: S unit(W_q x), all heads side by side

    The rule is that of fast weight programmers (Schlag et al., arXiv 2102.11174) with the decay of gated delta networks
    (Yang et al., arXiv 2412.06464). It is one step of gradient descent on ½|v − S k|², as in test-time training
    (Sun et al., arXiv 2407.04620). λ is a field here, and learned per token there.

    The place gets the read of all heads as a single entry (B, 1, G·d).
    """

    Config = FastWeightsConfig
    config: FastWeightsConfig

    def __init__(self, config: FastWeightsConfig, dimensions: Dimensions):
        super().__init__(config, dimensions, entries=1, width=config.width)
        inputs = 2 * dimensions.width
        self.query, self.key, self.value = (nn.Linear(inputs, config.width, bias=False) for _ in range(3))
        self.strength = nn.Linear(inputs, config.heads)  # β

    @property
    def units(self) -> Units:
        return Units("heads", self.config.heads, ("weights",))

    def init_state(self, slots: int) -> State:
        heads, width = self.config.heads, self.config.width // self.config.heads
        return {"weights": self.value.weight.new_zeros(slots, heads, width, width)}

    def look_up(self, state: State, query: Query, clock: Clock) -> Retrieved:
        weights = state["weights"]
        key = self._unit_keys(self.query(self._input(query, weights)))
        return Retrieved((weights @ key[..., None]).flatten(1)[:, None])

    def update(self, state: State, query: Query, clock: Clock, retrieved: Retrieved | None) -> State:
        kept = self.config.decay * state["weights"]
        x = self._input(query, kept)
        key, value = self._unit_keys(self.key(x)), self.value(x).unflatten(1, (self.config.heads, -1))
        strength = torch.sigmoid(self.strength(x))[..., None]
        error = value - (kept @ key[..., None])[..., 0]
        return {"weights": kept + (strength * error)[..., None] * key[..., None, :]}

    def _input(self, query: Query, like: Tensor) -> Tensor:
        """(B, 2D) features of this tick."""
        return torch.cat([query.summary, query.patches], dim=1).to(like.dtype)

    def _unit_keys(self, x: Tensor) -> Tensor:
        """(B, G, d) of Euclidean length 1."""
        return F.normalize(x.unflatten(1, (self.config.heads, -1)), dim=-1)

    def store_flops(self) -> int:
        layers = (self.query, self.key, self.value, self.strength)
        state = self.config.width**2 // self.config.heads
        return 2 * sum(layer.weight.numel() for layer in layers) + 8 * state
