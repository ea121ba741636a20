"""From a MemoryConfig to its mechanism."""

from __future__ import annotations

from muvla.config import MemoryConfig
from muvla.memory.base import Memory
from muvla.memory.none import NoMemory
from muvla.memory.tokens import DummyMemory, TokenMemory


def build_memory(config: MemoryConfig, embedding: int) -> Memory:
    """The mechanism of a canonical configuration; `embedding` is D."""
    if config.kind == "none":
        return NoMemory(embedding)
    if config.kind == "dummy":
        return DummyMemory(config.m, embedding, config.init_std)
    return TokenMemory(config.m, embedding, config.init_std, config.alpha)
