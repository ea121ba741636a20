"""Fusion of a query x with what was retrieved, h (MemoryVLA, arXiv 2508.19236, section 3.2).

    gate    g ⊙ x + (1 − g) ⊙ h,   g = σ(W [x ; h] + b)        in the convention of the released code
    add     (x + h) / 2

With h = x, `add` returns x exactly. The gate returns x up to one rounding of g·x + (1 − g)·x.

Legend: B slots, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

GATE_STD = 1e-3  # of the gate's initial weights and bias, as published


class GateFusion(nn.Module):
    """A learned gate for each number; about ½ at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Linear(2 * width, width)

    def initialise_parameters(self, generator_of: Callable[[str], torch.Generator]) -> None:
        for name, parameter in self.gate.named_parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, GATE_STD, generator=generator_of(name)))

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the fused tokens and the gate g, both (B, N, D)."""
        gate = self.gate(torch.cat([x, h], dim=-1)).sigmoid()
        return gate * x + (1 - gate) * h, gate

    def flops(self, tokens: int) -> int:
        """Floating-point operations per slot."""
        return 2 * tokens * self.gate.weight.numel()


class AddFusion(nn.Module):
    """The mean of query and retrieved tokens: a gate of ½ without parameters."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the fused tokens and the constant gate, both (B, N, D)."""
        return (x + h) / 2, torch.full_like(x, 0.5)

    def flops(self, tokens: int) -> int:
        """No matrix product."""
        return 0
