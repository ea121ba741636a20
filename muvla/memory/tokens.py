"""Memory tokens that carry content from tick to tick (μVLA), and dummy tokens that carry nothing.

Legend: B slots, m memory width, D width, α blend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from muvla.config import MemoryConfig
from muvla.memory.base import Memory
from muvla.memory.contract import Clock, Dimensions, Observed, Read, Retrieved, State, Taps, Units
from muvla.memory.token_config import TokenConfig
from muvla.memory.zero_linear import ZeroLinear


@dataclass(frozen=True)
class TokenMemoryConfig(TokenConfig):
    kind: str = "tokens"

    @property
    def recurs(self) -> bool:
        return self.m > 0

    def canonical(self) -> MemoryConfig:
        """The gate takes the place of α."""
        if self.m == 0:
            return super().canonical()
        return self if self.gate == "none" else replace(self, alpha=1.0)

    def update_rule(self, K: int) -> str:
        if self.gate == "learned":
            return f"gated, K={K}"
        if self.alpha == 1:
            return f"K={K}"
        return f"EMA {self.alpha:g}" + (f", K={K}" if K > 1 else "")


@dataclass(frozen=True)
class DummyMemoryConfig(TokenConfig):
    kind: str = "dummy"

    def canonical(self) -> MemoryConfig:
        """α and gate are unused: nothing is blended."""
        return replace(self, alpha=1.0, gate="none") if self.m > 0 else super().canonical()


class _LearnedTokens(Memory):
    """m learned vectors of width D, normal(0, init_std) at the start (spec 2.1)."""

    def __init__(self, config: TokenConfig, dimensions: Dimensions):
        super().__init__(config, dimensions)
        self.initial = nn.Parameter(torch.empty(config.m, dimensions.width))

    def initialise_parameters(self, generator_of: Callable[[str], torch.Generator]) -> None:
        # Row by row: m = 4 and m = 8 share their first four tokens, so that a wider memory differs in nothing else.
        for i, row in enumerate(self.initial):
            row.normal_(0.0, self.config.init_std, generator=generator_of(f"initial.{i}"))

    @property
    def units(self) -> Units:
        return Units("tokens", self.tokens, ("tokens",))

    def init_state(self, slots: int) -> State:
        return {"tokens": self.initial.expand(slots, -1, -1)}

    def read(self, state: State, observed: Observed | None = None, clock: Clock | None = None) -> Read:
        """The state verbatim; neither observation nor clock is used."""
        return Read(state["tokens"])


class TokenMemory(_LearnedTokens):
    """Memory tokens carried from tick to tick: M' = α·out + (1−α)·M (spec 2.2, 2.5).

    The read returns the state unchanged.

    α = 1 is the published TBPTT write. α < 1 is the published EMA when the trainer truncates at every tick (K = 1);
    with K > 1 the two are crossed, which the paper lacks.

    A learned gate takes the place of α: M' = g·out + (1−g)·M with g = σ(w·[out ; M] + b) for each token. All tokens
    share w and b, which start at zero, so that g starts at ½. The gate is ours; the paper has none.
    """

    Config = TokenMemoryConfig

    def __init__(self, config: TokenConfig, dimensions: Dimensions):
        super().__init__(config, dimensions)
        self.gate = ZeroLinear(2 * dimensions.width, 1, bias=True) if config.gate == "learned" else None

    def write(
        self,
        state: State,
        taps: Taps,
        clock: Clock | None = None,
        read: Read | None = None,
        retrieved: Retrieved | None = None,
    ) -> State:
        """M' from the states at the MEMORY rows; a token that was not in the sequence keeps its value.

        For the arguments see `Memory.write`; clock and retrieved content are unused.
        """
        old, alpha = state["tokens"], self.config.alpha
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(torch.cat([taps.memory, old], dim=-1)))
            new: Tensor = gate * taps.memory + (1 - gate) * old
        else:  # α = 1 apart is not only cheaper: 0·M would turn a non-finite M into NaN.
            new = taps.memory if alpha == 1.0 else alpha * taps.memory + (1 - alpha) * old
        if read is not None and read.present is not None:
            new = torch.where(read.present[..., None], new, old)
        return {"tokens": new}

    def flops(self) -> int:
        if self.gate is not None:
            return 7 * self.initial.numel()
        return 0 if self.config.alpha == 1.0 else 3 * self.initial.numel()


class DummyMemory(_LearnedTokens):
    """Learned tokens without content: the initial tokens at every tick.

    It is bit-identical to `TokenMemory` reset at every tick, gradients included, because `muvla.recurrence` resets a
    mechanism that does not recur at every tick.
    """

    Config = DummyMemoryConfig

    def write(
        self,
        state: State,
        taps: Taps,
        clock: Clock | None = None,
        read: Read | None = None,
        retrieved: Retrieved | None = None,
    ) -> State:
        return self.init_state(len(taps.memory))
