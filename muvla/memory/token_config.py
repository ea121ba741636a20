"""Configuration that `none`, `dummy` and `tokens` share.

The three serialise to the same four fields, which stand in every train id. The gate is a later field: at its default it
stays out of the train id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from muvla.config import MemoryConfig
from muvla.config.serialization import ADDED_LATER
from muvla.config.validation import require


@dataclass(frozen=True)
class TokenConfig(MemoryConfig):
    """Width m, and the write of a memory that carries content: the blend α, M' = α·out + (1−α)·M, or a gate."""

    m: int = 0
    alpha: float = 1.0
    init_std: float = 0.02  # of the learned initial memory (spec 2.1)
    # `learned`: M' = g·out + (1−g)·M, with g in (0, 1) for each token in place of α.
    gate: Literal["none", "learned"] = field(default="none", metadata=ADDED_LATER)

    def __post_init__(self):
        require(self.m >= 0, "memory.m", self.m, "m ≥ 0", "set the number of memory tokens")
        require(  # in float32, a smaller α leaves a memory where it is
            1e-4 <= self.alpha <= 1,
            "memory.alpha",
            self.alpha,
            "0.0001 ≤ α ≤ 1",
            "α = 1 replaces the memory outright; memory.kind=dummy is a memory that never moves",
        )
        require(self.init_std >= 0, "memory.init_std", self.init_std, "≥ 0", "set a standard deviation")

    @property
    def tokens(self) -> int:
        return self.m

    @property
    def has_state(self) -> bool:
        return self.m > 0

    @property
    def recurs(self) -> bool:
        return False

    def canonical(self) -> MemoryConfig:
        """A memory of width 0 is no memory: it has neither parameters nor tokens."""
        return MemoryConfig("none", m=0, alpha=1.0, init_std=0.0)
