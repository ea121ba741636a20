"""Keyed random draws.

Every draw is a function of (seed, purpose, names or ticks) and of nothing else. So adding a memory, a cell, an
intervention or a process never shifts anybody else's draws, and no generator state has to be saved for a resume.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key(seed: int, purpose: str, *parts: int | str) -> int:
    """A 63-bit integer that is a function of the arguments alone (BLAKE2b of their text)."""
    text = "\x1f".join([str(int(seed)), purpose, *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_rng(seed: int, purpose: str, *parts: int | str) -> np.random.Generator:
    return np.random.default_rng(key(seed, purpose, *parts))


def torch_rng(seed: int, purpose: str, *parts: int | str) -> torch.Generator:
    """A CPU generator: draws are made on the CPU and moved, so that a GPU run sees the same numbers."""
    import torch  # here, because an environment's process draws without it and starts in a fraction of the time

    return torch.Generator().manual_seed(key(seed, purpose, *parts))
