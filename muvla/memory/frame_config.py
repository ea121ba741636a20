"""Configuration and base of the mechanisms that keep vision tokens of earlier frames.

Legend: V cameras, P patches, m MEMORY tokens, K truncation length.
"""

from __future__ import annotations

from dataclasses import dataclass

from muvla.config import MemoryConfig
from muvla.config.validation import is_whole, require
from muvla.errors import MuvlaError
from muvla.memory.contract import Dimensions


@dataclass(frozen=True)
class FrameConfig(MemoryConfig):
    """The number of a frame's tokens, which a configuration needs for m and which the data decide."""

    frame_tokens: int = 0  # V·P, of the model's size and the data's cameras; 0 is not known yet

    def __post_init__(self):
        require(
            is_whole(self.frame_tokens) and self.frame_tokens >= 0,
            "memory.frame_tokens",
            self.frame_tokens,
            "V·P ≥ 0",
            "set cameras × patches",
        )

    @property
    def gradient_crosses(self) -> bool:
        """Stored frames are detached copies."""
        return False

    def require_frame(self, dimensions: Dimensions) -> None:
        """Raises MuvlaError where a frame of the policy has another number of tokens."""
        if self.frame_tokens != dimensions.vision:
            raise MuvlaError(
                "memory.frame_tokens",
                got=self.frame_tokens,
                expected=f"{dimensions.vision}, cameras × patches of this policy",
                remedy=f"set memory.frame_tokens to {dimensions.vision}",
            )
