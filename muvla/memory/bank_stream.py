"""One stream of a bank: what it looks up, fuses and stores (MemoryVLA, arXiv 2508.19236; Dexbotic's variant).

Legend: B slots, L capacity, N tokens of an entry, D width.

    h = retrieval(x; entries, times)        x̃ = fusion(x, h)        store x or x̃, then make room

The read comes before the write. Batches are tensors of fixed size: no slot and no entry is looped over.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muvla.memory.consolidation import Consolidation, Store, append
from muvla.memory.fusion import AddFusion, GateFusion
from muvla.memory.retrieval import Retrieval
from muvla.memory.time_code import TimeCode


@dataclass(frozen=True)
class StreamSettings:
    """How a stream works; each field is a factor of the bank's configuration."""

    capacity: int  # L ≥ 1
    layers: int = 2
    heads: int = 1
    time_code: bool = True
    gate: bool = True
    rule: Consolidation = "merge"
    dexbotic: bool = False  # else MemoryVLA's details; see `BankConfig.details`


@dataclass(frozen=True)
class Lookup:
    """Result of a lookup with a query x (B, N, D)."""

    retrieved: Tensor  # (B, N, D) h; equals x where the store is empty
    fused: Tensor  # (B, N, D) x̃
    gate: Tensor  # (B, N, D) share of x in x̃
    mass: Tensor  # (B, layers, L) attention mass of each entry


class BankStream(nn.Module):
    """The weights of one stream.

    Args:
        tokens: N.
        width: D.
        settings: see `StreamSettings`.
    """

    def __init__(self, tokens: int, width: int, settings: StreamSettings):
        super().__init__()
        self.tokens, self.width, self.settings = tokens, width, settings
        self.retrieval = Retrieval(width, settings.layers, settings.heads)
        # MemoryVLA's sinusoid has a quarter of the width, Dexbotic's always 256 numbers.
        sinusoids = 256 if settings.dexbotic else 2 * max(1, width // 8)
        self.time_code = TimeCode(width, sinusoids) if settings.time_code else None
        self.fusion = GateFusion(width) if settings.gate else AddFusion()

    def empty_store(self, slots: int) -> Store:
        """A store without entries. Times are whole numbers unless merged times are means."""
        like, capacity = next(self.parameters()), self.settings.capacity
        counts = torch.zeros(slots, capacity, dtype=torch.int64, device=like.device)
        times = torch.zeros_like(counts, dtype=torch.float32) if self.settings.dexbotic else counts
        return Store(like.new_zeros(slots, capacity, self.tokens, self.width), times, counts, counts.new_zeros(slots))

    def lookup(self, query: Tensor, store: Store, now: Tensor) -> Lookup:
        """Look a query up in the store as the tick began with it.

        Args:
            query: (B, N, D) x.
            store: entries of earlier ticks.
            now: (B,) the time of this tick.
        """
        store = self._searched(query, store, now)
        codes = None if self.time_code is None else self.time_code(store.times)
        retrieved, mass = self.retrieval(query, store.entries, codes, store.alive)
        fused, gate = self.fusion(query, retrieved)
        return Lookup(retrieved, fused, gate, mass)

    def _searched(self, query: Tensor, store: Store, now: Tensor) -> Store:
        """The store itself; in Dexbotic, an empty slot gets the query as its only entry."""
        if not self.settings.dexbotic:
            return store
        return store.replaced(store.length == 0, self.append(self.empty_store(len(query)), query, now))

    def append(self, store: Store, entry: Tensor, time: Tensor) -> Store:
        """The store with the entry (B, N, D) of time (B,) in every slot."""
        return append(store, entry, time, self.settings.rule, mean_time=self.settings.dexbotic)

    def flops(self) -> int:
        """Floating-point operations of a lookup, per slot. They do not depend on the entries alive."""
        settings = self.settings
        codes = 0 if self.time_code is None else settings.capacity * self.time_code.flops()
        keys = settings.capacity * self.tokens
        return self.retrieval.flops(self.tokens, keys) + codes + self.fusion.flops(self.tokens)
