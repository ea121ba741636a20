"""Truncation blocks: where gradient through the memory stops.

Legend: W window ticks, B slots, K truncation length.
"""

from __future__ import annotations

import numpy as np

from muvla.config import BlockOrigin


def block_starts(is_first: np.ndarray, K: int, origin: BlockOrigin) -> np.ndarray:
    """(W, …) bool: the ticks of one window at which a slot's truncation block starts; `is_first` (W, …) marks the ticks
    at which its episode does.

    From the `window`: a block starts at every K-th tick of the window, for all slots at once. From the `episode`: at
    every K-th tick of the slot's episode, so that an episode's blocks are the same wherever it lies in the window. A
    window's first tick starts a block in either case, because the parameters change between windows: what an episode
    still has to play there is counted from that tick on, so that no block is shorter than K but the one that ends with
    its window or its episode.
    """
    starts = np.empty(is_first.shape, dtype=bool)
    played = np.zeros(is_first.shape[1:], dtype=np.int64)  # ticks since the window's or the episode's first
    for t, first in enumerate(is_first):
        if origin == "episode":
            played[first] = 0
        starts[t] = played % K == 0
        played += 1
    return starts
