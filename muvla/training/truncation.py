"""Truncation blocks: where gradient through the memory stops.

Legend: W window ticks, B slots, K truncation length.
"""

from __future__ import annotations

import numpy as np

from muvla.config import BlockOrigin


def find_block_starts(is_first: np.ndarray, K: int, origin: BlockOrigin) -> np.ndarray:
    """Returns (W, …) bool: the ticks of one window at which a slot's truncation block starts.

    A window's first tick starts a block in either case, because the parameters change between windows. The rest of an
    episode is then counted from this tick. So only the last block of a window or of an episode can be shorter than K.

    Args:
        is_first: (W, …) bool, ticks at which an episode starts.
        K: truncation length in ticks.
        origin: `window` starts a block at every K-th tick of the window, for all slots at once. `episode` starts a
            block at every K-th tick of the slot's episode, so that an episode has the same blocks wherever it lies
            in the window.
    """
    starts = np.empty(is_first.shape, dtype=bool)
    played = np.zeros(is_first.shape[1:], dtype=np.int64)  # ticks since the first tick of the window or the episode
    for t, first in enumerate(is_first):
        if origin == "episode":
            played[first] = 0
        starts[t] = played % K == 0
        played += 1
    return starts
