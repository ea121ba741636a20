"""The frames of the demonstrations that a training plays (`data.decision_steps`)."""

from __future__ import annotations

import numpy as np

from muvla.config import DataConfig
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase


class Played:
    """The played frames of a store.

    Attributes:
        lengths: (episodes,) played frames of each demonstration.
        starts: (episodes,) number of its first frame among all played frames.
        frames: (D,) played frames of each dataset.
    """

    def __init__(self, store: EpisodeStore, data: DataConfig):
        """Counts the frames. Raises MuvlaError as `get_played_lengths`."""
        self.lengths = get_played_lengths(store, data)
        self.starts = np.cumsum(self.lengths) - self.lengths
        first = np.cumsum([0, *(len(part) for part in store.parts[:-1])])
        self.frames = np.add.reduceat(self.lengths, first).tolist()


def get_played_lengths(store: EpisodeStore, data: DataConfig) -> np.ndarray:
    """Returns (episodes,): how many frames of each demonstration are played, from its first frame on.

    With `data.decision_steps` = n a demonstration ends with the n-th step of its decision. A demonstration without a
    decision is played whole.

    Raises:
        MuvlaError: `data.decision_steps` is set, and the phases of the demonstrations are unknown.
    """
    if data.decision_steps is None:
        return store.lengths
    store.require_executed("data.decision_steps")
    frames = np.flatnonzero(np.asarray(store["phase"]) == Phase.DECISION)
    first = np.append(frames, np.iinfo(np.int64).max - data.decision_steps)[np.searchsorted(frames, store.starts)]
    return np.minimum(store.lengths, first + data.decision_steps - store.starts)
