"""A linear layer that starts at zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroLinear(nn.Module):
    """A linear layer whose weight starts at zero, and the bias too where the layer has one."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def initialise_parameters(self, generator_of: Callable[[str], torch.Generator]) -> None:
        for parameter in self.parameters():
            parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)
