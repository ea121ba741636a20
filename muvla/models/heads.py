"""Proprio projector and action head.

Legend: B slots, D width of the language model, H chunk, A action dim, Q proprio dim.
"""

from __future__ import annotations

from torch import Tensor, nn


class ProprioProjector(nn.Module):
    """Projects (B, Q) normalised proprio to the (B, 1, D) PROPRIO token (spec 1.3)."""

    def __init__(self, proprio_dim: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(proprio_dim, width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(width, width)

    def forward(self, proprio: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(proprio)))[:, None]


class _ResidualBlock(nn.Module):
    """Computes x + ReLU(Linear(LayerNorm(x)))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.fc(self.norm(x)))


class ActionHead(nn.Module):
    """Maps (B, H·A, D) hidden states to (B, H, A) normalised actions, with a linear output (spec 1.7).

    Under a diffusion head, the same module predicts the noise in the actions (spec 1.11). The head concatenates the A
    states of one chunk step, and all H steps share one MLP.
    """

    def __init__(self, chunk: int, action_dim: int, width: int):
        super().__init__()
        self.chunk, self.action_dim = chunk, action_dim
        self.norm_in = nn.LayerNorm(action_dim * width)
        self.fc_in = nn.Linear(action_dim * width, width)
        self.act = nn.ReLU()
        self.blocks = nn.Sequential(_ResidualBlock(width), _ResidualBlock(width))
        self.norm_out = nn.LayerNorm(width)
        self.fc_out = nn.Linear(width, action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        per_step = hidden.reshape(hidden.shape[0], self.chunk, -1)
        return self.fc_out(self.norm_out(self.blocks(self.act(self.fc_in(self.norm_in(per_step))))))
