"""Training budget and optimizer.

Legend: B slots, W window, U updates, K truncation length, F frames per update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from muvla.config.serialization import ADDED_LATER
from muvla.config.validation import require


@dataclass(frozen=True)
class BudgetConfig:
    """Slots B, window W and updates U as declared, and the regime that applies a truncation length K to them.

    | regime | effect of K |
    |---|---|
    | `matched` | none: B, W and U are the same for every cell, whatever K and α are |
    | `matched_frames` | W = K, and as many updates as give the declared number of frames |
    | `published` | W = K at the declared U: K multiplies the frames of an update and of the training (spec 2.4) |

    `Cell.effective_budget` is the result.
    """

    slots: int = 16
    window: int = 8
    updates: int = 1500
    regime: Literal["matched", "matched_frames", "published"] = field(default="matched", metadata=ADDED_LATER)

    def __post_init__(self):
        for name in ("slots", "window", "updates"):
            require(getattr(self, name) >= 1, f"budget.{name}", getattr(self, name), "≥ 1", "set a positive number")

    @property
    def frames_per_update(self) -> int:
        """F = B·W."""
        return self.slots * self.window

    @property
    def total_frames(self) -> int:
        return self.frames_per_update * self.updates


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, both as fractions, so that they scale with U."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup: float = 0.05  # fraction of U
    final: float = 0.1  # last learning rate, fraction of lr
    clip: float | None = 1.0  # largest gradient norm; None clips nothing (as published)
    # Rate at which the warm-up starts: near zero, or, as published, a tenth of lr.
    warmup_from: Literal["zero", "tenth"] = field(default="zero", metadata=ADDED_LATER)

    def __post_init__(self):
        require(0 < self.lr < math.inf, "optimizer.lr", self.lr, "> 0", "set a learning rate")
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "optimizer.betas",
            self.betas,
            "two fractions in [0, 1)",
            "set two fractions",
        )
        require(
            0 <= self.weight_decay <= 10,  # an update multiplies parameters by 1 - lr · weight_decay
            "optimizer.weight_decay",
            self.weight_decay,
            "0 ≤ weight_decay ≤ 10",
            "set 0 for none; the default is 0.01",
        )
        require(0 <= self.warmup < 1, "optimizer.warmup", self.warmup, "a fraction in [0, 1)", "set a share of U")
        require(0 <= self.final <= 1, "optimizer.final", self.final, "a fraction in [0, 1]", "set a share of lr")
        require(self.clip is None or self.clip > 0, "optimizer.clip", self.clip, "> 0 or null", "set null for none")
