"""The frames of the demonstrations that a training plays (`data.decision_steps`)."""

from __future__ import annotations

import numpy as np

from muvla.config import DataConfig
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase


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
