"""The guard: which query rows may attend to which key columns, and the kernels that compute it.

Legend: B slots, S sequence, heads N, d head width.

| query rows \\ keys     | BOS VISION PROPRIO MEMORY TEXT | ACTION STOP TIME               | PAD |
|------------------------|--------------------------------|--------------------------------|-----|
| rows barred by a guard | yes                            | no                             | no  |
| all other rows         | yes                            | yes                            | no  |

`full` bars no row, `memory_only` bars MEMORY, `context` bars BOS, VISION, PROPRIO, MEMORY and TEXT (the published
custom mask, spec 3.1). Attention is never causal, and never left to a library's default: transformers reads "no mask"
as causal, and its eager kernel adds a boolean mask as 0/1 (both silent). Here torch's own kernel is called, to which no
mask means that every row sees every key.

| backend | computes | needs |
|---|---|---|
| `split` | one torch kernel per group of rows that see the same keys; a mask only where there is padding | |
| `dense` | one torch kernel with the whole mask | |
| `flash` | flash-attn per group, padding removed by packing | CUDA, half precision, flash-attn |
| `flex` | one kernel that torch compiles for the guard | CUDA |
| `auto` | `flash` or `split`, see `resolve` | |
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from muvla.errors import MuvlaError
from muvla.models.backends import Packed, flash, flex, obstacle, pack
from muvla.models.sequence import Layout, Segment

_log = logging.getLogger(__name__)

CONTEXT = (Segment.BOS, Segment.VISION, Segment.PROPRIO, Segment.MEMORY, Segment.TEXT)
BARRED_ROWS: dict[str, tuple[Segment, ...]] = {"full": (), "memory_only": (Segment.MEMORY,), "context": CONTEXT}
GUARDED_KEYS = (Segment.ACTION, Segment.STOP, Segment.TIME)


def may_attend(query: Tensor, key: Tensor, guard: str) -> Tensor:
    """Broadcast segment ids of queries and keys → bool, True where the query may attend. The guard's only
    definition."""
    if guard not in BARRED_ROWS:
        raise MuvlaError("model.guard", got=guard, expected=f"one of {', '.join(BARRED_ROWS)}", remedy="choose a scope")
    barred = _is_any(query, BARRED_ROWS[guard]) & _is_any(key, GUARDED_KEYS)
    return ~barred & (key != int(Segment.PAD))


def _is_any(segment: Tensor, members: tuple[Segment, ...]) -> Tensor:
    result = torch.zeros_like(segment, dtype=torch.bool)
    for member in members:
        # As a number: in code compiled by torch no tensor equals a member of an enumeration, so nobody would be barred.
        result = result | (segment == int(member))
    return result


@dataclass(frozen=True)
class AttentionPlan:
    """What every layer of one forward pass needs to know; masks are made once and shared by all layers."""

    layout: Layout
    segments: Tensor  # (B, S)
    guard: str
    backend: str

    @cached_property
    def mask(self) -> Tensor | None:
        """(B, 1, S, S) bool, True where attention is allowed; None where every row sees every key."""
        if self.guard == "full" and not self.layout.padded:
            return None
        return may_attend(self.segments[:, :, None], self.segments[:, None, :], self.guard)[:, None]

    @cached_property
    def row_groups(self) -> list[tuple[tuple[slice, ...], int, Tensor | None]]:
        """Rows grouped by the keys they may see: (row slices, number of leading keys, key mask or None).

        Without padding no group needs a mask, so the kernels without one can be used.
        """
        is_key = (self.segments != Segment.PAD)[:, None, None, :] if self.layout.padded else None
        return [
            (rows, keys, None if is_key is None else is_key[..., :keys])
            for rows, keys in _groups(self.layout, self.guard)
        ]

    def packed(self, slots: int) -> list[tuple[Packed, Packed]]:
        """(rows, keys) of every group without padding, for a batch of B = `slots`; made once, as the masks are."""
        if slots not in self._packed:
            is_token = (self.segments != Segment.PAD).expand(slots, -1)
            groups = _groups(self.layout, self.guard)
            self._packed[slots] = [(pack(is_token, *rows), pack(is_token, slice(0, keys))) for rows, keys in groups]
        return self._packed[slots]

    @cached_property
    def _packed(self) -> dict[int, list[tuple[Packed, Packed]]]:
        return {}

    @cached_property
    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Indices of slot, head, row and key → bool: `mask` as flex asks for it."""
        segments, guard, alike = self.segments, self.guard, len(self.segments) == 1

        def allowed(slot: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
            own = 0 if alike else slot
            return may_attend(segments[own, row], segments[own, key], guard)

        return allowed

    @cached_property
    def block_mask(self) -> BlockMask:
        slots, length = self.segments.shape
        return create_block_mask(self.mask_mod, slots, None, length, length, device=self.segments.device)


@lru_cache(maxsize=64)
def _groups(layout: Layout, guard: str) -> tuple[tuple[tuple[slice, ...], int], ...]:
    """The guard's rows by how many leading keys they see, padding aside; read off `may_attend`.

    Splitting is exact only because every row sees a leading part of the sequence: guarded keys stand at its end.
    """
    segments = layout.segments(torch.tensor([layout.text]))[0]
    allowed = may_attend(segments[:, None], segments[None, :], guard)
    seen = allowed.sum(dim=1)
    if not torch.equal(allowed, torch.arange(layout.length) < seen[:, None]):
        raise MuvlaError(
            "model.attention",
            got=f"split with guard {guard!r}",
            expected="a guard whose rows see a leading part of the keys",
            remedy="use the dense backend",
        )
    starts = [0, *(i for i in range(1, layout.length) if seen[i] != seen[i - 1]), layout.length]
    groups: dict[int, list[slice]] = {}
    for start, stop in itertools.pairwise(starts):
        groups.setdefault(int(seen[start]), []).append(slice(start, stop))
    return tuple((tuple(rows), keys) for keys, rows in groups.items())


def dense(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by one kernel with the boolean mask."""
    return scaled_dot_product_attention(q, k, v, attn_mask=plan.mask, scale=scale, enable_gqa=grouped)


def split(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by one unmasked kernel per row group."""
    pieces: list[tuple[slice, Tensor]] = []
    for rows, keys, key_mask in plan.row_groups:
        queries = torch.cat([q[:, :, r] for r in rows], dim=2) if len(rows) > 1 else q[:, :, rows[0]]
        out = scaled_dot_product_attention(
            queries, k[:, :, :keys], v[:, :, :keys], attn_mask=key_mask, scale=scale, enable_gqa=grouped
        )
        pieces += list(zip(rows, out.split([r.stop - r.start for r in rows], dim=2), strict=True))
    pieces.sort(key=lambda piece: piece[0].start)
    return torch.cat([out for _, out in pieces], dim=2) if len(pieces) > 1 else pieces[0][1]


BACKENDS: dict[str, Callable[..., Tensor]] = {"dense": dense, "split": split, "flash": flash, "flex": flex}


def usable(device: str, dtype: torch.dtype) -> list[str]:
    """The backends that can compute on tensors of this device type and dtype."""
    return [name for name in BACKENDS if obstacle(name, device, dtype) is None]


def resolve(backend: str, device: str, dtype: torch.dtype, padded: bool) -> str:
    """The backend that computes; for `auto` the one that suits the tensors, logged once per process."""
    if backend != "auto":
        return backend
    if not padded:
        return _chosen("split", "without padding it needs no mask, so torch takes its own flash kernel where it can")
    if problem := obstacle("flash", device, dtype):
        return _chosen("split", f"flash needs {problem.expected}, got {problem.got}")
    return _chosen("flash", "split would need a mask for the padding, which flash removes")


@lru_cache(maxsize=16)
def _chosen(backend: str, reason: str) -> str:
    """Cached: asked in every layer of every tick, said once."""
    _log.info("attention: auto is %s: %s", backend, reason)
    return backend


def guarded_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, plan: AttentionPlan | None = None, **_
):
    """transformers' attention interface: (B, N, S, d) → ((B, S, N, d), None)."""
    if plan is None:
        raise MuvlaError(
            "plan",
            got=None,
            expected="an AttentionPlan",
            remedy="call the language model through Policy.step; attention without a guard is never a default",
        )
    grouped = key.shape[1] != query.shape[1]
    query, key, value = as_multiplied(query, key, value)
    backend = resolve(plan.backend, query.device.type, query.dtype, plan.layout.padded)
    out = BACKENDS[backend](query, key, value, plan, scaling, grouped)
    return out.transpose(1, 2).contiguous(), None


def as_multiplied(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As a backend gets them. Rotary positions leave q and k wider than v; torch's kernels are cast by autocast, all
    others are not."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)


ATTENTION_NAME = "muvla_guarded"
AttentionInterface.register(ATTENTION_NAME, guarded_attention)
