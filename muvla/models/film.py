"""FiLM as OpenVLA-OFT has it: the prompt scales and shifts the tokens of every block of both towers (spec 1.10).

Legend: N frames, V cameras, T text, D width of the language model, d width of a tower, S tokens of a tower.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from muvla.config.model import SizeConfig


class FilmLayer(nn.Module):
    """Computes x·(1 + γ) + β from x (N·V, S, d) and language e (N·V, D), with γ = scale(e), β = shift(e) for all
    tokens."""

    def __init__(self, width: int, tower: int):
        super().__init__()
        self.scale = nn.Linear(width, tower)
        self.shift = nn.Linear(width, tower)

    def forward(self, x: Tensor, language: Tensor) -> Tensor:
        # The sum has the precision of the tokens: in bfloat16, 1 + γ would lose a small γ.
        scale, shift = (layer(language)[:, None].to(x.dtype) for layer in (self.scale, self.shift))
        return x * (1 + scale) + shift


class Film(nn.Module):
    """A FiLM layer for every block that computes: features come from before a tower's last block, so the last
    has none."""

    def __init__(self, size: SizeConfig):
        super().__init__()
        self.dino = nn.ModuleList(FilmLayer(size.width, size.dino.width) for _ in range(size.dino.layers - 1))
        self.siglip = nn.ModuleList(FilmLayer(size.width, size.siglip.width) for _ in range(size.siglip.layers - 1))


def average_language(bos: Tensor, words: Tensor, stop: Tensor, lengths: Tensor) -> Tensor:
    """Returns (N, D), the mean embedding of BOS, prompt and STOP.

    The published training averages over the padding of its batch too, so a frame's features depend on the other rows'
    prompts (spec 1.10). This function omits padding.

    Args:
        bos, stop: (N, 1, D).
        words: (N, T, D), padded on the left.
        lengths: (N,) true prompt lengths.
    """
    padding = torch.arange(words.shape[1], device=words.device) < (words.shape[1] - lengths)[:, None]
    total = words.masked_fill(padding[..., None], 0).sum(1) + bos[:, 0] + stop[:, 0]
    return total / (lengths + 2)[:, None]


def dino_block(block: nn.Module, film: FilmLayer, x: Tensor, language: Tensor) -> Tensor:
    x = x + block.layer_scale1(block.attention(block.norm1(x))[0])
    x = film(x, language)
    return x + block.layer_scale2(block.mlp(block.norm2(x)))


def siglip_block(block: nn.Module, film: FilmLayer, x: Tensor, language: Tensor) -> Tensor:
    x = x + block.self_attn(block.layer_norm1(x))[0]
    x = film(x, language)
    return x + block.mlp(block.layer_norm2(x))


def modulate(compute: Callable[..., Tensor], block: nn.Module, *inputs: nn.Module | Tensor) -> Tensor:
    """Runs a block with FiLM between attention and MLP.

    This point lies inside the library's block, so `compute` writes the block out instead of calling the block. The
    backward pass recomputes `compute` where the library would recompute the block.
    """
    if block.gradient_checkpointing and block.training:
        return checkpoint(compute, block, *inputs, use_reentrant=False)
    return compute(block, *inputs)
