"""Configuration that every mechanism with a place shares.

Legend: m MEMORY tokens, K truncation length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from muvla.config import MemoryConfig
from muvla.config.data import DataConfig
from muvla.config.model import ModelConfig
from muvla.config.validation import is_whole, require
from muvla.errors import unknown_name

PLACES = ("context", "fuse", "modulate")  # see `muvla.memory.place`
CONDITION = "condition"  # the place of the mechanisms that were published with an action expert


@dataclass(frozen=True)
class PlaceConfig(MemoryConfig):
    """Where retrieved content acts, and the mechanism's control without a past.

    A mechanism adds its fields after these, and names the places that it has in `places`.
    """

    places: ClassVar[tuple[str, ...]] = PLACES

    place: str = "context"
    m: int = 4  # MEMORY tokens in the place `context`; the other places have none
    # The emptied twin: the same weights, and at every tick the store holds the current tick's entry alone (M 12.6).
    emptied: bool = False

    def __post_init__(self):
        if self.place not in self.places:
            raise unknown_name("memory.place", self.place, self.places)
        least = int(self.place == "context")
        require(
            is_whole(self.m) and self.m >= least,
            "memory.m",
            self.m,
            f"m ≥ {least} in the place {self.place}",
            "set a number of tokens",
        )

    @property
    def tokens(self) -> int:
        return self.m if self.place == "context" else 0

    @property
    def has_state(self) -> bool:
        """An emptied twin has no past that could be recorded or changed."""
        return not self.emptied

    @property
    def recurs(self) -> bool:
        return not self.emptied

    def canonical(self) -> MemoryConfig:
        """The number of tokens is unused in every place but `context`."""
        return self if self.place == "context" else replace(self, m=0)

    def require_compatible(self, data: DataConfig, model: ModelConfig) -> None:
        super().require_compatible(data, model)
        require(
            self.place != CONDITION or model.head == "expert",
            "memory.place",
            self.place,
            f"context, fuse or modulate with model.head {model.head}, which has no condition",
            "set model.head to expert, or memory.place to fuse",
        )

    def update_rule(self, K: int) -> str:
        rule = f"{self.kind}, {self.place}" + (", emptied" if self.emptied else "")
        return rule + (f", K={K}" if self.gradient_crosses else "")
