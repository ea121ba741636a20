"""Configuration of a memory mechanism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from muvla.config.validation import require


@dataclass(frozen=True)
class MemoryConfig:
    """Which mechanism, its width m and its blend α: M' = α·out + (1−α)·M."""

    kind: Literal["none", "dummy", "tokens"] = "none"
    m: int = 0
    alpha: float = 1.0
    init_std: float = 0.02  # of the learned initial memory (spec 2.1)

    def __post_init__(self):
        require(self.m >= 0, "memory.m", self.m, "m ≥ 0", "set the number of memory tokens")
        require(0 < self.alpha <= 1, "memory.alpha", self.alpha, "0 < α ≤ 1", "α = 1 replaces the memory outright")
        require(self.init_std >= 0, "memory.init_std", self.init_std, "≥ 0", "set a standard deviation")
