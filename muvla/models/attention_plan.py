"""The work of attention in one forward pass, derived from the guard once and shared by all layers.

Legend: B slots, S sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import pad

from muvla.errors import MuvlaError
from muvla.models.guard import may_attend
from muvla.models.sequence import Layout, Segment


@dataclass(frozen=True)
class Packed:
    """A part of the batch's tokens, slot after slot and without padding."""

    index: Tensor  # (n,) int64, into the batch's B·S tokens
    ends: Tensor  # (B + 1,) int32, where each slot's tokens end, after a leading 0
    most: int  # largest count of one slot, PAD included


def pack(is_token: Tensor, *parts: slice) -> Packed:
    """Packs the tokens of these parts of the sequence; `is_token` (B, S) is False at PAD.

    `most` counts PAD too: the kernel divides its work by `most`, and a slot must get the same division beside any
    neighbours.
    """
    chosen = torch.zeros_like(is_token)
    for part in parts:
        chosen[:, part] = is_token[:, part]
    ends = pad(chosen.sum(dim=1).cumsum(dim=0), (1, 0)).to(torch.int32)
    return Packed(chosen.flatten().nonzero()[:, 0], ends, sum(part.stop - part.start for part in parts))


@dataclass(frozen=True)
class AttentionPlan:
    """Everything that the layers of one forward pass need to know about attention; each mask is made once."""

    layout: Layout
    segments: Tensor  # (B, S)
    guard: str
    backend: str

    @cached_property
    def mask(self) -> Tensor | None:
        """(B, 1, S, S) bool, True where attention is allowed; None where every row sees every key."""
        if self.guard == "full" and not self.layout.padded and not self.layout.causal:
            return None
        allowed = may_attend(self.segments[:, :, None], self.segments[:, None, :], self.guard)[:, None]
        return allowed.tril() if self.layout.causal else allowed

    @cached_property
    def row_groups(self) -> list[tuple[tuple[slice, ...], int, Tensor | None]]:
        """Rows grouped by the keys that they may see: (row slices, number of leading keys, key mask or None).

        Without padding no group needs a mask, so kernels without a mask apply.
        """
        is_key = (self.segments != Segment.PAD)[:, None, None, :] if self.layout.padded else None
        return [
            (rows, keys, None if is_key is None else is_key[..., :keys])
            for rows, keys in _groups(self.layout, self.guard)
        ]

    def packed(self, slots: int) -> list[tuple[Packed, Packed]]:
        """Returns (rows, keys) of every group without padding, for a batch of B = `slots`; made once."""
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
        """The mask as flex needs it: a function from indices of slot, head, row and key to bool."""
        segments, guard, alike = self.segments, self.guard, len(self.segments) == 1
        causal = self.layout.causal

        def allowed(slot: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
            line = 0 if alike else slot
            seen = may_attend(segments[line, row], segments[line, key], guard)
            return seen & (key <= row) if causal else seen

        return allowed

    @cached_property
    def block_mask(self) -> BlockMask:
        slots, length = self.segments.shape
        return create_block_mask(self.mask_mod, slots, None, length, length, device=self.segments.device)


@lru_cache(maxsize=64)
def _groups(layout: Layout, guard: str) -> tuple[tuple[tuple[slice, ...], int], ...]:
    """Groups the guard's rows by the number of leading keys that they see, padding aside, by evaluating `may_attend`.

    This division is exact only because guarded keys stand at the sequence's end, so every row sees a leading part of
    the sequence. Causal rows are one group, whose kernel hides what comes later. Raises MuvlaError for a guard without
    this property.
    """
    if layout.causal:
        return (((slice(0, layout.length),), layout.length),)
    segments = layout.segments(torch.tensor([layout.text]))[0]
    allowed = may_attend(segments[:, None], segments[None, :], guard)
    seen = allowed.sum(dim=1)
    if not torch.equal(allowed, torch.arange(layout.length) < seen[:, None]):
        raise MuvlaError(
            "model.attention",
            got=f"split with guard {guard!r}",
            expected="a guard whose rows see a leading part of the keys",
            remedy="set model.attention to dense",
        )
    starts = [0, *(i for i in range(1, layout.length) if seen[i] != seen[i - 1]), layout.length]
    groups: dict[int, list[slice]] = {}
    for start, stop in itertools.pairwise(starts):
        groups.setdefault(int(seen[start]), []).append(slice(start, stop))
    return tuple((tuple(rows), keys) for keys, rows in groups.items())
