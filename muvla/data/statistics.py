"""Normalisation of actions and proprio to [-1, 1] by quantiles of the executed demonstrations.

Legend: Q proprio dim, A action dim, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvla.data.episodes import EpisodeStore

# The published bounds (μVLA spec 4.2).
LOW, HIGH = 0.01, 0.99


@dataclass(frozen=True)
class Statistics:
    """Quantiles 0.01 and 0.99 per dimension, over all frames.

    Of what the simulator applied in every frame, the zeros of the no-op phases included, whatever a cell is supervised
    with: so all label arms share one object, never-executed actions do not enter the scale, and the zeros that
    `executed` supervises lie inside the bounds and are not clipped. A dimension that is constant becomes -1, and -1, or
    anything else, becomes that constant again.
    """

    action_low: tuple[float, ...]  # (A,)
    action_high: tuple[float, ...]
    proprio_low: tuple[float, ...]  # (Q,)
    proprio_high: tuple[float, ...]
    data: str  # content hash of the dataset

    @classmethod
    def of(cls, store: EpisodeStore) -> Statistics:
        action, proprio = (np.asarray(store[name], dtype=np.float64) for name in ("executed_action", "proprio"))
        bounds = [np.quantile(column, q, axis=0) for column in (action, proprio) for q in (LOW, HIGH)]
        return cls(*(tuple(bound.tolist()) for bound in bounds), data=store.sha256)

    def normalise_action(self, action: np.ndarray) -> np.ndarray:
        """(…, A) float32 in [-1, 1]; what lies outside the quantiles is clipped."""
        return _normalise(action, self.action_low, self.action_high)

    def unnormalise_action(self, action: np.ndarray) -> np.ndarray:
        """The inverse inside the quantiles; (…, A) float32."""
        low, width = _bounds(self.action_low, self.action_high)
        return (low + 0.5 * (np.asarray(action, dtype=np.float64) + 1) * width).astype(np.float32)

    def normalise_proprio(self, proprio: np.ndarray) -> np.ndarray:
        """(…, Q) float32 in [-1, 1]."""
        return _normalise(proprio, self.proprio_low, self.proprio_high)


def _bounds(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lower bound and width."""
    return np.asarray(low), np.asarray(high) - np.asarray(low)


def _normalise(values: np.ndarray, low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    start, width = _bounds(low, high)
    varies = width > 0
    scaled = 2 * (np.asarray(values, dtype=np.float64) - start) / np.where(varies, width, 1) - 1
    return np.where(varies, np.clip(scaled, -1, 1), -1).astype(np.float32)
