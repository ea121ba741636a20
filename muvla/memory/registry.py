"""Memory mechanisms by name.

A package outside this project adds a mechanism by an entry point in the group `muvla.memory`; see
docs/extending/memory.md. No module of this file imports torch before a mechanism is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muvla.utils.registry import Registry

if TYPE_CHECKING:
    from muvla.config import MemoryConfig
    from muvla.memory.base import Memory
    from muvla.memory.contract import Dimensions

MECHANISMS = Registry(
    "muvla.memory",
    {
        "none": "muvla.memory.none:NoMemory",
        "dummy": "muvla.memory.tokens:DummyMemory",
        "tokens": "muvla.memory.tokens:TokenMemory",
        "gru": "muvla.memory.gru:GruMemory",
        "frame_stack": "muvla.memory.frame_stack:FrameStack",
        "first_frame": "muvla.memory.first_frame:FirstFrame",
        "bank": "muvla.memory.bank:BankMemory",
        "feature_fifo": "muvla.memory.feature_fifo:FeatureFifo",
        "fast_weights": "muvla.memory.fast_weights:FastWeightsMemory",
    },
    "memory.kind",
)


def get_mechanism(name: str) -> type[Memory]:
    """The mechanism's class. Raises MuvlaError with the nearest match for an unknown name."""
    return MECHANISMS.load(name)


def build_memory(config: MemoryConfig, dimensions: Dimensions) -> Memory:
    """The mechanism of a configuration, for a policy of these dimensions."""
    return get_mechanism(config.kind)(config, dimensions)
