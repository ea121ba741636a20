"""Layers of the action expert: noise level, blocks, and the two forms of cross-attention (MemoryVLA spec 3, 13).

Legend: B rows, S = 1 + H sequence, n context tokens, h width of the expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from muvla.memory.time_code import TimeCode

SINUSOIDS = 256  # of a noise level, as published
NORM_EPS = 1e-6
GeneratorOf = Callable[[str], torch.Generator]


def draw_normal(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def draw_xavier(parameter: Tensor, generator: torch.Generator) -> None:
    """Draws a matrix from the uniform distribution of Glorot and Bengio."""
    bound = math.sqrt(6 / sum(parameter.shape))
    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


class LevelEmbedding(TimeCode):
    """Noise levels (B,) → (B, h): the sinusoid and the two layers that a time of a memory has, too."""

    def __init__(self, width: int):
        super().__init__(width, SINUSOIDS)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention without a mask.

    Args:
        q: (B, S, h).
        k, v: (B, n, h).
        heads: they divide h.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Every row of the sequence sees every row."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(attend(*self.qkv(x).chunk(3, dim=-1), self.heads))


class PerceptionAttention(nn.Module):
    """Attention to the perceptual tokens, which stand in the expert's width (MemoryVLA).

    As released, `qkv` starts at zero. Scores are bilinear in the query and the key matrix, so that both keep a gradient
    of exactly zero: the layer stays a mean over tokens (spec 3.1).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, S, h) and context (B, n, h) → (B, S, h)."""
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        sources = (self.norm(x), context, context)
        q, k, v = (nn.functional.linear(s, w, b) for s, w, b in zip(sources, weights, biases, strict=True))
        return self.out(attend(q, k, v, self.heads))

    def initialise(self, released: bool, generator_of: GeneratorOf) -> None:
        """Draws initial values; `released` as published, else trainable in all its parts."""
        for layer in (self.qkv, self.out):
            layer.bias.zero_()
        draw_xavier(self.out.weight, generator_of("out.weight"))
        self.qkv.weight.zero_()
        if not released:
            for name, part in zip(("query", "key", "value"), self.qkv.weight.chunk(3), strict=True):
                draw_xavier(part, generator_of(f"{name}.weight"))
            self.out.weight.zero_()


class WindowAttention(nn.Module):
    """Attention to the condition tokens of a window of features (CronusVLA)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS)
        self.query, self.pair, self.out = (nn.Linear(width, n * width) for n in (1, 2, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, S, h) and context (B, n, h) → (B, S, h)."""
        return self.out(attend(self.query(self.norm(x)), *self.pair(context).chunk(2, dim=-1), self.heads))


class ExpertBlock(nn.Module):
    """One block, with its norms before the sums:

        x + SelfAttention(LN x)    then x + CrossAttention(x, context)    then x + MLP(LN x)

    Args:
        width: h.
        heads: of each attention.
        cross: the cross-attention; None without a context.
    """

    def __init__(self, width: int, heads: int, cross: nn.Module | None):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS) for _ in range(2))
        self.attention, self.cross = SelfAttention(width, heads), cross
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm1(x))
        if self.cross is not None:
            x = x + self.cross(x, context)
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))
