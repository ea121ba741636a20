"""Configuration that every mechanism with a store of entries shares."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.config import MemoryConfig
from muvla.config.validation import is_whole, require
from muvla.memory.place_config import PlaceConfig

MOST_ENTRIES = 10_000  # more than the frames of any published episode


@dataclass(frozen=True)
class StoreConfig(PlaceConfig):
    """The capacity of the store, and where gradient stops, beside the place."""

    capacity: int = 16  # L
    # As published, the store holds copies without gradient. Else gradient reaches the writes of one truncation block.
    detached: bool = True

    def __post_init__(self):
        super().__post_init__()
        require(
            is_whole(self.capacity) and 0 <= self.capacity <= MOST_ENTRIES,
            "memory.capacity",
            self.capacity,
            f"0 to {MOST_ENTRIES}",
            "set the entries per slot; 0 stores nothing",
        )

    @property
    def is_read(self) -> bool:
        """A store without capacity is never read: the mechanism computes what `none` computes."""
        return self.capacity > 0

    @property
    def tokens(self) -> int:
        return super().tokens if self.is_read else 0

    @property
    def has_state(self) -> bool:
        return super().has_state and self.is_read

    @property
    def recurs(self) -> bool:
        return super().recurs and self.is_read

    @property
    def gradient_crosses(self) -> bool:
        return self.recurs and not self.detached

    def canonical(self) -> MemoryConfig:
        """A store that is never read is no memory."""
        return super().canonical() if self.is_read else MemoryConfig("none").canonical()
