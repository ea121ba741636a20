"""A learned code of an entry's time.

    code(t) = W₂ SiLU(W₁ [cos(t·f) ; sin(t·f)])

The sinusoid is computed in float32 whatever the precision of the weights, as in the published code (MemoryVLA,
arXiv 2508.19236; the paper describes the sinusoid alone).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LONGEST_PERIOD = 10_000.0


class TimeCode(nn.Module):
    """Times (…) → codes (…, D).

    Args:
        width: D.
        sinusoids: numbers of the sinusoid, half of them cosines; even.
    """

    def __init__(self, width: int, sinusoids: int):
        super().__init__()
        self.sinusoids = sinusoids
        self.hidden = nn.Linear(sinusoids, width)
        self.out = nn.Linear(width, width)

    def forward(self, times: Tensor) -> Tensor:
        half = self.sinusoids // 2
        powers = torch.arange(half, dtype=torch.float32, device=times.device) / half
        angles = times[..., None].float() * torch.exp(-math.log(LONGEST_PERIOD) * powers)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.hidden.weight.dtype)
        return self.out(nn.functional.silu(self.hidden(waves)))

    def flops(self) -> int:
        """Floating-point operations per time."""
        return 2 * (self.hidden.weight.numel() + self.out.weight.numel())
