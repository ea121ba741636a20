"""The vision tokens of the last frames, beside those of this tick.

Legend: B slots, V cameras, P patches, s pixels of an image's side, D width, C frames that the store holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from muvla.config import MemoryConfig
from muvla.config.validation import is_whole, require
from muvla.memory.base import Memory
from muvla.memory.contract import Clock, Dimensions, Observation, Observed, Read, Retrieved, State, Taps, Units
from muvla.memory.frame_config import FrameConfig


@dataclass(frozen=True)
class FrameStackConfig(FrameConfig):
    """k frames with a stride between them; the newest is this tick's, so that k = 1 is no memory."""

    kind: str = "frame_stack"
    k: int = 2
    stride: int = 1  # ticks from one frame to the next
    # True: the store holds pixels, and the towers encode them at every tick, with gradient. False: it holds projected
    # patches as the towers encoded them at their tick.
    recomputed: bool = False

    def __post_init__(self):
        super().__post_init__()
        require(is_whole(self.k) and self.k >= 1, "memory.k", self.k, "k ≥ 1", "k = 1 is this tick's frame alone")
        require(
            is_whole(self.stride) and self.stride >= 1,
            "memory.stride",
            self.stride,
            "≥ 1 tick",
            "stride = 1 keeps consecutive ticks",
        )

    @property
    def tokens(self) -> int:
        return (self.k - 1) * self.frame_tokens

    @property
    def has_state(self) -> bool:
        return self.k > 1

    @property
    def recurs(self) -> bool:
        return self.k > 1

    def canonical(self) -> MemoryConfig:
        """One frame is no memory."""
        return self if self.k > 1 else MemoryConfig("none", m=0, alpha=1.0, init_std=0.0)

    def update_rule(self, K: int) -> str:
        return f"{self.k} frames, stride {self.stride}" + (", recomputed" if self.recomputed else "")

    @property
    def span(self) -> tuple[int, str]:
        return (self.k * self.stride if self.k > 1 else 0), "memory.k"


class FrameStack(Memory):
    """The last k − 1 frames at distances of `stride` ticks, as (k − 1)·V·P MEMORY tokens, the newest first.

    The position of a token in the sequence tells its age, so there is no parameter. Frames before the episode's start
    are not in the sequence.
    """

    Config = FrameStackConfig
    config: FrameStackConfig

    def __init__(self, config: FrameStackConfig, dimensions: Dimensions):
        super().__init__(config, dimensions)
        self.dimensions, self.capacity = dimensions, (config.k - 1) * config.stride  # C
        self.observes = self.observed_by(config)
        if config.k > 1:
            config.require_frame(dimensions)

    @classmethod
    def observed_by(cls, config: FrameStackConfig) -> tuple[Observation, ...]:
        return ("pixels",) if config.recomputed and config.k > 1 else ()

    @property
    def units(self) -> Units:
        return Units("frames", self.capacity, ("frames",))

    def valid_units(self, state: State) -> Tensor:
        return torch.arange(self.capacity, device=state["length"].device) < state["length"]

    def init_state(self, slots: int) -> State:
        sizes, device = self.dimensions, self.empty.device
        if self.observes:
            shape = (sizes.cameras, 3, sizes.image_size, sizes.image_size)
            frames = torch.zeros(slots, self.capacity, *shape, dtype=torch.uint8, device=device)
        else:
            frames = self.empty.new_zeros(slots, self.capacity, sizes.vision, self.embedding)
        return {"frames": frames, "length": torch.zeros(slots, dtype=torch.int64, device=device)}

    def read(self, state: State, observed: Observed, clock: Clock) -> Read:
        stride, k = self.config.stride, self.config.k
        if k == 1:
            return super().read(state, observed, clock)
        frames = state["frames"][:, stride - 1 :: stride]  # (B, k − 1, …), the newest first
        tokens = observed.encode(frames.flatten(1, 2)) if self.observes else frames.flatten(1, 2)
        age = stride * torch.arange(1, k, device=tokens.device)
        present = (state["length"][:, None] >= age).repeat_interleave(self.config.frame_tokens, dim=1)
        return Read(tokens.to(self.empty.dtype), None if bool(present.all()) else present)

    def write(self, state: State, taps: Taps, clock: Clock, read: Read, retrieved: Retrieved | None) -> State:
        if self.config.k == 1:
            return state
        observed, frames = taps.observed, state["frames"]
        new = (observed.pixels if self.observes else observed.vision.to(frames.dtype))[:, None]
        return {
            "frames": torch.cat([new, frames[:, :-1]], dim=1),
            "length": (state["length"] + 1).clamp(max=self.capacity),
        }
