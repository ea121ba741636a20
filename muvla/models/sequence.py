"""The token sequence of one tick: which segments, in which order, at which RoPE positions.

Legend: B slots, S sequence, V cameras, P patches, m memory, T text, H chunk, A action dim.

    BOS | VISION (V·P) | PROPRIO | MEMORY (m) | PAD… TEXT (T) | ACTION (H·A) | STOP [| TIME]   (μVLA spec 1.1)
    BOS | VISION (V·P) | PROPRIO | MEMORY (m) | PAD… TEXT (T) | STOP       with an action expert (MemoryVLA spec 1)

The published code pads on the far right, which moves ACTION to a different index in every row of a mixed batch. Its
guard was computed from one length per batch and leaked (spec 3.4). Here padding stands to the left of TEXT, so every
other segment starts at the same index in every row, and a segment id per row says what a token is. RoPE positions are
explicit and skip the padding, so a padded row computes what the unpadded row would. The TIME token of a diffusion head
stands last and has its published position, before TEXT (spec 1.11).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Segment(IntEnum):
    BOS = 0
    VISION = 1
    PROPRIO = 2
    MEMORY = 3
    TEXT = 4
    ACTION = 5
    STOP = 6
    PAD = 7
    TIME = 8  # noise level of the ACTION tokens, under a diffusion head


@dataclass(frozen=True)
class Layout:
    """Token counts of a batch; every static number that attention and the heads need.

    `reserve` is the number of RoPE positions kept free for MEMORY (≥ m), `text` the padded text length. `padded` says
    whether any row may be shorter. It belongs to the batch shape and not to the current rows: a slot must get the same
    kernel, and so the same bits, beside any neighbours.
    """

    vision: int  # V·P
    memory: int  # m
    text: int  # T, padded
    action: int  # H·A
    reserve: int
    padded: bool
    proprio: int = 1  # 0 for a policy without proprio
    time: int = 0  # 1 for a diffusion head
    causal: bool = False  # a token sees only the tokens before it

    @property
    def memory_start(self) -> int:
        return 1 + self.vision + self.proprio

    @property
    def text_start(self) -> int:
        return self.memory_start + self.memory

    @property
    def action_start(self) -> int:
        return self.text_start + self.text

    @property
    def length(self) -> int:
        """S."""
        return self.action_start + self.action + 1 + self.time

    @property
    def memory_slice(self) -> slice:
        return slice(self.memory_start, self.text_start)

    @property
    def summary(self) -> int:
        """The row whose state a memory may query with and store: the last TEXT token. Without ACTION tokens it is the
        STOP token that closes the text, the cognition token (MemoryVLA spec 1.2)."""
        return self.action_start - 1 if self.action else self.action_start

    @property
    def action_read(self) -> slice:
        """The rows that the action head reads: one to the left of the ACTION tokens, from the last TEXT token to the
        last ACTION token but one (spec 1.6, kept for parity). An action expert reads the cognition token."""
        return slice(self.summary, self.summary + max(1, self.action))

    def segments(self, text_lengths: Tensor, removed: Tensor | None = None) -> Tensor:
        """Returns (B, S) segment ids for (B,) text lengths; MEMORY tokens in `removed` (B, m) become PAD."""
        row = torch.cat(
            [
                torch.tensor([Segment.BOS]),
                torch.full((self.vision,), Segment.VISION),
                torch.full((self.proprio,), Segment.PROPRIO),
                torch.full((self.memory,), Segment.MEMORY),
                torch.full((self.text,), Segment.TEXT),
                torch.full((self.action,), Segment.ACTION),
                torch.tensor([Segment.STOP]),
                torch.full((self.time,), Segment.TIME),
            ]
        ).to(text_lengths.device)
        rows = row.repeat(len(text_lengths), 1)
        index = torch.arange(self.length, device=text_lengths.device)
        first_text = (self.action_start - text_lengths)[:, None]
        is_pad = (index >= self.text_start) & (index < first_text)
        if removed is not None:
            is_pad[:, self.memory_slice] |= removed
        return torch.where(is_pad, int(Segment.PAD), rows)

    def positions(self, text_lengths: Tensor) -> Tensor:
        """Returns (B, S) RoPE positions for (B,) text lengths: 0… through MEMORY, then TEXT from memory_start +
        reserve.

        With `reserve == m` these are the published plain positions 0…S−1 of the unpadded row (`shift`).
        """
        index = torch.arange(self.length, device=text_lengths.device).expand(len(text_lengths), -1)
        padding = (self.text - text_lengths)[:, None]
        time = self.memory_start + self.reserve
        after = index - self.text_start - padding + time + self.time
        positions = torch.where(index < self.text_start, index, after.clamp(min=0))
        return torch.where(index < self.length - self.time, positions, time)
