"""The vision tokens of one early frame, kept for the whole episode.

Legend: B slots, V cameras, P patches, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from muvla.config.validation import is_whole, require
from muvla.memory.base import Memory, where_slot
from muvla.memory.contract import Clock, Dimensions, Observed, Read, Retrieved, State, Taps, Units
from muvla.memory.frame_config import FrameConfig


@dataclass(frozen=True)
class FirstFrameConfig(FrameConfig):
    """The frame that is kept: the first (0), or a later frame that shows the cue."""

    kind: str = "first_frame"
    frame: int = 0  # environment step; the frame of the first tick at or after this step is kept

    def __post_init__(self):
        super().__post_init__()
        require(
            is_whole(self.frame) and self.frame >= 0,
            "memory.frame",
            self.frame,
            "step ≥ 0",
            "0 keeps the episode's first frame",
        )

    @property
    def tokens(self) -> int:
        return self.frame_tokens

    def update_rule(self, K: int) -> str:
        return "first frame" if self.frame == 0 else f"frame of step {self.frame}"

    @property
    def span(self) -> tuple[int, str]:
        return self.frame + 1, "memory.frame"


class FirstFrame(Memory):
    """The projected patches of one frame as V·P MEMORY tokens: an oracle for tasks that show the cue in that frame.

    Until the tick after the frame, no MEMORY token is in the sequence. The frame is a copy without gradient, as the
    towers encoded it at its tick.
    """

    Config = FirstFrameConfig
    config: FirstFrameConfig
    settles = True

    def __init__(self, config: FirstFrameConfig, dimensions: Dimensions):
        super().__init__(config, dimensions)
        config.require_frame(dimensions)

    @property
    def units(self) -> Units:
        return Units("frames", 1, ("frames",))

    def valid_units(self, state: State) -> Tensor:
        return state["held"][None]

    def init_state(self, slots: int) -> State:
        frames = self.empty.new_zeros(slots, 1, self.config.frame_tokens, self.embedding)
        return {"frames": frames, "held": torch.zeros(slots, dtype=torch.bool, device=frames.device)}

    def read(self, state: State, observed: Observed, clock: Clock) -> Read:
        held = state["held"]
        present = None if bool(held.all()) else held[:, None].expand(-1, self.tokens)
        return Read(state["frames"][:, 0], present)

    def write(self, state: State, taps: Taps, clock: Clock, read: Read, retrieved: Retrieved | None) -> State:
        frames, held = state["frames"], state["held"]
        new = ~held & (clock.step >= self.config.frame)
        return {
            "frames": where_slot(new, taps.observed.vision.to(frames.dtype)[:, None], frames),
            "held": held | new,
        }
