"""A mechanism with a store of entries and a place."""

from __future__ import annotations

import torch
from torch import Tensor

from muvla.memory.contract import Clock, Observed, Read, Retrieved, State, Taps
from muvla.memory.placed import PlacedMemory
from muvla.memory.store_config import StoreConfig


class StoredMemory(PlacedMemory):
    """Base class of the mechanisms with a store; its leaf `length` (B,) counts the entries of each slot.

    A store without capacity is neither searched nor written.
    """

    Config: type[StoreConfig]
    config: StoreConfig

    @property
    def reads_observation(self) -> bool:
        return self.config.is_read

    def valid_units(self, state: State) -> Tensor:
        return torch.arange(self.config.capacity, device=state["length"].device) < state["length"]

    def read(self, state: State, observed: Observed, clock: Clock) -> Read:
        if self.config.is_read:
            return super().read(state, observed, clock)
        return Read(self.empty.expand(len(clock.is_first), 0, self.embedding))

    def retrieve(self, state: State, query: Taps, clock: Clock) -> Retrieved | None:
        return super().retrieve(state, query, clock) if self.config.is_read else None

    def write(self, state: State, taps: Taps, clock: Clock, read: Read, retrieved: Retrieved | None) -> State:
        return super().write(state, taps, clock, read, retrieved) if self.config.is_read else state

    def flops(self) -> int:
        return super().flops() if self.config.is_read else 0
