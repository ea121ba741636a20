"""Retrieval from a store of entries by cross-attention (MemoryVLA, arXiv 2508.19236, section 3.2 and released code).

Legend: B slots, L entries, N tokens of an entry, D width, q query tokens.

The query meets all tokens of all entries. Time codes are added to the keys alone. A block has its norms after the sums:

    y = LN(x + softmax(W_q x (W_k k)ᵀ / √d) W_v v)        out = LN(y + W₂ GELU(W₁ y))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RetrievalBlock(nn.Module):
    """One block of cross-attention, without output projection and without dropout.

    Args:
        width: D.
        heads: of the attention; they divide D.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention_norm = nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.feed_forward_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """One block.

        Args:
            x: (B, q, D) queries.
            keys: (B, S, D).
            values: (B, S, D).
            allowed: (B, S) bool, at least one True in every slot.

        Returns:
            (B, q, D), and the attention (B, heads, q, S), which is 0 where it is not allowed.
        """
        q, k, v = (
            layer(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, part in ((self.query, x), (self.key, keys), (self.value, values))
        )
        scale = q.shape[-1] ** -0.25  # on both sides, like torch's attention: the published sums round this way
        scores = (q * scale) @ (k * scale).transpose(-1, -2)
        attention = scores.masked_fill(~allowed[:, None, None], -math.inf).softmax(dim=-1)
        y = self.attention_norm(x + (attention @ v).transpose(1, 2).flatten(2))
        return self.feed_forward_norm(y + self.contract(nn.functional.gelu(self.expand(y)))), attention

    def flops(self, queries: int, keys: int) -> int:
        """Floating-point operations per slot for these numbers of tokens."""
        width = self.query.in_features
        dense = queries * (self.query.weight.numel() + 2 * self.expand.weight.numel())
        return 2 * (dense + keys * 2 * self.key.weight.numel() + 2 * queries * keys * width)


class Retrieval(nn.Module):
    """Blocks that refine a query by the entries of a store.

    Args:
        width: D.
        layers: number of blocks.
        heads: of each block.
    """

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(RetrievalBlock(width, heads) for _ in range(layers))

    def forward(self, query: Tensor, entries: Tensor, codes: Tensor | None, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Look the query up.

        Args:
            query: (B, q, D).
            entries: (B, L, N, D).
            codes: (B, L, D) time codes; None without.
            alive: (B, L) bool, the entries that hold content; a slot without one gets its query back.

        Returns:
            (B, q, D), and the attention mass of each entry (B, layers, L): the mean over heads and query tokens of the
            attention that falls on the entry's tokens. A slot without an entry has mass 0.
        """
        tokens = entries.shape[2]
        values = entries.flatten(1, 2)
        keys = values if codes is None else (entries + codes[:, :, None]).flatten(1, 2)
        filled = alive.any(dim=1)
        # A slot without an entry attends to its first, empty row, so that no number of the softmax is undefined.
        first = torch.arange(alive.shape[1], device=alive.device) == 0
        allowed = (alive | (first & ~filled[:, None])).repeat_interleave(tokens, dim=1)
        x, masses = query, []
        for block in self.blocks:
            x, attention = block(x, keys, values, allowed)
            masses.append(attention.detach().mean(dim=(1, 2)).unflatten(-1, (-1, tokens)).sum(dim=-1))
        mass = torch.stack(masses, dim=1) * filled[:, None, None]
        return torch.where(filled[:, None, None], x, query), mass

    def flops(self, queries: int, keys: int) -> int:
        """Floating-point operations per slot for these numbers of tokens."""
        return sum(block.flops(queries, keys) for block in self.blocks)
