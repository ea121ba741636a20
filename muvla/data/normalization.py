"""Normalisation of actions and proprio to [-1, 1] by quantiles of the demonstrations, all datasets of a mixture pooled.

Legend: Q proprio dim, A action dim, N frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np

from muvla.config.serialization import content_hash
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError

# The published bounds (μVLA spec 4.2).
LOW, HIGH = 0.01, 0.99
RELEASED_MARGIN = 1e-8
# A policy's normalised actions before they are scaled back. `open`: as predicted (OpenVLA-OFT). `clipped`: dimensions
# that are scaled are clipped to [-1, 1] (MemoryVLA since its wrist cameras). `binary`: every dimension is clipped, and
# what is not scaled becomes 0 or 1, at 0.5 (CogACT, CronusVLA and earlier MemoryVLA).
Outputs = Literal["open", "clipped", "binary"]


@dataclass(frozen=True)
class Statistics:
    """Quantiles 0.01 and 0.99 per dimension, over all frames.

    With `executed`, action quantiles are of the actions that the simulator applied in every frame, including the zeros
    of the no-op phases, whatever labels a cell has. So all label variants share one scale, never-executed actions do
    not enter it, and the supervised zeros lie inside the bounds and are not clipped. Imported demonstrations do not
    record executed actions: their quantiles are of the recorded actions of all phases, as published. `recorded` uses
    recorded actions for collected demonstrations too.

    A constant dimension is normalised to -1, and any value is unnormalised to that constant. Mean and standard
    deviation scale nothing; they are information for people and for exports.
    """

    action_low: tuple[float, ...]  # (A,)
    action_high: tuple[float, ...]
    proprio_low: tuple[float, ...]  # (Q,)
    proprio_high: tuple[float, ...]
    action_mask: tuple[bool, ...]  # (A,) False for a dimension that is not scaled
    data: str  # content hash of the dataset or mixture, or of the released bounds
    # Releases and older checkpoints lack these, and no policy computes with them, so comparisons ignore them.
    action_mean: tuple[float, ...] | None = field(default=None, compare=False)  # (A,)
    action_std: tuple[float, ...] | None = field(default=None, compare=False)
    proprio_mean: tuple[float, ...] | None = field(default=None, compare=False)  # (Q,)
    proprio_std: tuple[float, ...] | None = field(default=None, compare=False)

    @classmethod
    def from_store(cls, store: EpisodeStore, actions: Literal["executed", "recorded"] = "executed") -> Statistics:
        """Computes the statistics of a dataset; `actions` names the actions to scale by, where the dataset records
        both."""
        source = f"{actions}_action" if store.knows_executed else "recorded_action"
        bounds, moments = [], []
        for name in (source, "proprio"):
            column = np.asarray(store[name])
            # One dimension at a time: all of them in double precision, and sorted, may not fit into memory.
            moments_of = [_moments(column[:, i].astype(np.float64)) for i in range(column.shape[1])]
            low, high, mean, deviation = zip(*moments_of, strict=True)
            bounds, moments = [*bounds, low, high], [*moments, mean, deviation]
        mask = tuple(i not in store.pass_through for i in range(len(bounds[0])))
        return cls(*bounds, mask, store.sha256, *moments)

    @property
    def id(self) -> str:
        """Hash of the scaling numbers and of the data that they come from."""
        compared = {f.name for f in fields(self) if f.compare}
        return content_hash({name: value for name, value in asdict(self).items() if name in compared})

    @classmethod
    def from_release(cls, bounds: dict[str, Any]) -> Statistics:
        """Builds the statistics from one dataset's entry in a release: q01, q99 and, for actions, a mask.

        The range is q99 − q01 + 1e-8, also for constant dimensions (spec 4.2). Raises MuvlaError for a missing entry.
        """
        columns = []
        for field_name in ("action", "proprio"):
            for name in ("q01", "q99"):
                column = bounds.get(field_name, {}).get(name)
                if not isinstance(column, list):
                    raise MuvlaError(
                        f"statistics: {field_name}.{name}",
                        got=column,
                        expected="a list of numbers",
                        remedy="pass the entry of one dataset from dataset_statistics.json",
                    )
                columns.append(tuple(float(x) + (RELEASED_MARGIN if name == "q99" else 0.0) for x in column))
        mask = tuple(map(bool, bounds["action"].get("mask", [True] * len(columns[0]))))
        return cls(*columns, action_mask=mask, data=content_hash([*columns, mask]))

    def normalise_action(self, action: np.ndarray) -> np.ndarray:
        """Returns (…, A) float32 in [-1, 1]; values outside the quantiles are clipped."""
        return self._masked(_normalise(action, self.action_low, self.action_high), action)

    def normalise_still(self, last: np.ndarray) -> np.ndarray:
        """Returns the normalised action of a robot that does not move: (…, A) float32.

        Scaled dimensions, which are changes of the pose, become the normalised zero, as published without clipping.
        Unscaled dimensions, such as the gripper, keep their values in `last` (…, A), which is normalised.
        """
        low, width = _bounds(self.action_low, self.action_high)
        zero = np.where(width > 0, -2 * low / np.where(width > 0, width, 1) - 1, -1)
        return np.where(self.action_mask, zero, last).astype(np.float32)

    def finish_action(self, action: np.ndarray, outputs: Outputs) -> np.ndarray:
        """Returns a policy's normalised actions (…, A) as they are scaled back, see `Outputs`."""
        if outputs == "open":
            return action
        clipped = np.clip(action, -1, 1)
        rest = action if outputs == "clipped" else (clipped >= 0.5).astype(clipped.dtype)
        return np.where(self.action_mask, clipped, rest)

    def unnormalise_action(self, action: np.ndarray, outputs: Outputs = "open") -> np.ndarray:
        """Returns (…, A) float32; the inverse of `normalise_action` inside the quantiles."""
        action = self.finish_action(action, outputs)
        low, width = _bounds(self.action_low, self.action_high)
        result = (low + 0.5 * (np.asarray(action, dtype=np.float64) + 1) * width).astype(np.float32)
        return self._masked(result, action)

    def _masked(self, result: np.ndarray, given: np.ndarray) -> np.ndarray:
        return result if all(self.action_mask) else np.where(self.action_mask, result, given).astype(np.float32)

    def normalise_proprio(self, proprio: np.ndarray) -> np.ndarray:
        """Returns (…, Q) float32 in [-1, 1]."""
        return _normalise(proprio, self.proprio_low, self.proprio_high)


def _moments(values: np.ndarray) -> tuple[float, float, float, float]:
    """Returns both quantiles, mean and standard deviation of (N,).

    The sums run from the first value to the last, as NumPy sums over the rows of a matrix.
    """
    total = lambda terms: float(np.cumsum(terms)[-1])  # noqa: E731
    mean = total(values) / len(values)
    low, high = np.quantile(values, (LOW, HIGH)).tolist()
    return low, high, mean, (total((values - mean) ** 2) / len(values)) ** 0.5


def _bounds(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns lower bound and width."""
    return np.asarray(low), np.asarray(high) - np.asarray(low)


def _normalise(values: np.ndarray, low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    start, width = _bounds(low, high)
    varies = width > 0
    scaled = 2 * (np.asarray(values, dtype=np.float64) - start) / np.where(varies, width, 1) - 1
    return np.where(varies, np.clip(scaled, -1, 1), -1).astype(np.float32)
