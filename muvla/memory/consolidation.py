"""A store of entries per slot, as tensors of fixed size, and how it makes room.

Legend: B slots, L capacity, N tokens of an entry, D width.

An entry is appended to every slot at once. A full slot makes room by one of three rules:

| rule | a full slot |
|---|---|
| `merge` | replaces the most alike neighbours by their mean (MemoryVLA) |
| `counted_merge` | the same, each weighted by the writes that it holds |
| `fifo` | drops the oldest entry |

Neighbours are alike by the mean cosine of their tokens. `merge` weights an entry that was merged k times by 2⁻ᵏ in its
oldest part; `counted_merge` weights all writes alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from muvla.memory.base import where_slot

Consolidation = Literal["merge", "counted_merge", "fifo"]


@dataclass(frozen=True)
class Store:
    """Entries of B slots, oldest first; rows from `length` on hold zeros."""

    entries: Tensor  # (B, L, N, D)
    times: Tensor  # (B, L)
    counts: Tensor  # (B, L) integer, the writes that an entry holds
    length: Tensor  # (B,) integer

    @property
    def alive(self) -> Tensor:
        """(B, L) bool, the entries that hold content."""
        return torch.arange(self.times.shape[1], device=self.length.device) < self.length[:, None]

    def replaced(self, where: Tensor, other: Store) -> Store:
        """This store, with `other` in the slots `where` (B,)."""
        return Store(**{name: where_slot(where, leaf, getattr(self, name)) for name, leaf in vars(other).items()})


def append(store: Store, entry: Tensor, time: Tensor, rule: Consolidation, mean_time: bool = False) -> Store:
    """The store with one more entry in every slot.

    Args:
        store: of capacity L ≥ 1.
        entry: (B, N, D).
        time: (B,) of the entry.
        rule: how a full slot makes room.
        mean_time: a merged entry gets the mean of both times, as in Dexbotic; else the earlier time, as in MemoryVLA.
    """
    capacity, full = store.times.shape[1], store.length == store.times.shape[1]
    at = torch.arange(capacity + 1, device=full.device) == store.length[:, None]  # the row of the new entry
    entries = torch.where(at[..., None, None], entry[:, None], _with_row(store.entries))
    times = torch.where(at, time[:, None].to(store.times), _with_row(store.times))
    counts = torch.where(at, 1, _with_row(store.counts))
    kept = torch.arange(capacity, device=full.device).expand(len(full), capacity)
    if rule == "fifo":
        kept = kept + full[:, None]
    else:
        first = most_alike(entries)
        entries, times, counts = _merged(entries, times, counts, first, full, rule == "counted_merge", mean_time)
        kept = kept + (full[:, None] & (kept > first[:, None]))
    rows = torch.arange(len(full), device=full.device)[:, None]
    length = (store.length + 1).clamp(max=capacity)
    return Store(entries[rows, kept], times[rows, kept], counts[rows, kept], length)


@torch.no_grad()
def most_alike(entries: Tensor) -> Tensor:
    """(B,) the index i of the neighbours i and i + 1 with the largest mean cosine of their tokens.

    `entries` is (B, L + 1, N, D) without empty rows. Cosines are computed in float32 at least.
    """
    wide = entries.to(torch.promote_types(entries.dtype, torch.float32))
    return cosine_similarity(wide[:, :-1], wide[:, 1:], dim=-1).mean(dim=-1).argmax(dim=1)


def _with_row(leaf: Tensor) -> Tensor:
    return torch.cat([leaf, torch.zeros_like(leaf[:, :1])], dim=1)


def _merged(
    entries: Tensor, times: Tensor, counts: Tensor, first: Tensor, full: Tensor, counted: bool, mean_time: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The leaves (B, L + 1, …) of full slots with the mean of both neighbours in the row `first`."""
    rows, second = torch.arange(len(first), device=first.device), first + 1
    both = counts[rows, first] + counts[rows, second]
    share = counts[rows, first].double() / both if counted else torch.full_like(both, 0.5, dtype=torch.float64)
    at = (torch.arange(entries.shape[1], device=first.device) == first[:, None]) & full[:, None]

    def mean(leaf: Tensor) -> Tensor:
        weight = share.to(leaf).view(-1, *[1] * (leaf.ndim - 2))
        return weight * leaf[rows, first] + (1 - weight) * leaf[rows, second]

    entries = torch.where(at[..., None, None], mean(entries)[:, None], entries)
    if mean_time:
        times = torch.where(at, mean(times)[:, None], times)
    return entries, times, torch.where(at, both[:, None], counts)
