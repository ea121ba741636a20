"""The statistics of LeRobotDataset v3: min, max, mean, std, count and quantiles, of each episode and of all frames.

LeRobot 0.4 names the quantiles q01, q10, q50, q90 and q99. Numbers of a picture are scaled to [0, 1].

Legend: T frames, h×w image, n numbers.
"""

from __future__ import annotations

import numpy as np

QUANTILES = {f"q{round(100 * share):02d}": share for share in (0.01, 0.1, 0.5, 0.9, 0.99)}
LEVELS = 256  # of an 8-bit colour

Statistics = dict[str, np.ndarray]


def describe_numbers(values: np.ndarray) -> Statistics:
    """Returns the statistics of (T, n) numbers, each of shape (n,)."""
    values = values.astype(np.float64)
    statistics = {name: getattr(values, name)(axis=0) for name in ("min", "max", "mean", "std")}
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    statistics |= dict(zip(QUANTILES, quantiles, strict=True))
    return statistics | {"count": np.array([len(values)])}


def count_levels(images: np.ndarray) -> np.ndarray:
    """Returns (3, LEVELS) int64: how often each level occurs in (T, h, w, 3) uint8 images, by colour."""
    return np.stack([np.bincount(images[..., colour].ravel(), minlength=LEVELS) for colour in range(3)])


def describe_levels(counts: np.ndarray, frames: int) -> Statistics:
    """Returns the exact statistics of pictures, each of shape (3, 1, 1).

    Args:
        counts: (3, LEVELS), result of `count_levels`, or a sum of such results.
        frames: number of pictures.
    """
    levels, total = np.arange(LEVELS) / (LEVELS - 1), counts.sum(axis=1)
    present = counts > 0
    mean = counts @ levels / total
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / total
    statistics = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[LEVELS - 1 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance),
    }
    below = counts.cumsum(axis=1)
    for name, share in QUANTILES.items():
        place = share * (total - 1)  # between two of the sorted pixels, as numpy interpolates
        low, high = (
            levels[[np.searchsorted(row, rank, side="right") for row, rank in zip(below, ranks, strict=True)]]
            for ranks in (np.floor(place), np.ceil(place))
        )
        statistics[name] = low + (place - np.floor(place)) * (high - low)
    shaped = {name: value[:, None, None] for name, value in statistics.items()}
    return shaped | {"count": np.array([frames])}


class Totals:
    """Gathers the episodes' numbers and levels for the statistics of all frames."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[np.ndarray]] = {}
        self._levels: dict[str, np.ndarray] = {}
        self._frames = 0

    def add(self, numbers: dict[str, np.ndarray], images: dict[str, np.ndarray]) -> dict[str, Statistics]:
        """Adds an episode and returns its statistics by feature.

        Args:
            numbers: (T, n) by feature.
            images: (T, h, w, 3) uint8 by feature.
        """
        statistics = {}
        for key, values in images.items():
            counts = count_levels(values)
            self._levels[key] = self._levels.get(key, 0) + counts
            statistics[key] = describe_levels(counts, len(values))
        for key, values in numbers.items():
            self._numbers.setdefault(key, []).append(values)
            statistics[key] = describe_numbers(values)
        self._frames += len(next(iter(numbers.values())))
        return statistics

    def describe(self) -> dict[str, Statistics]:
        """Returns the statistics of all frames by feature."""
        pictures = {key: describe_levels(counts, self._frames) for key, counts in self._levels.items()}
        return pictures | {key: describe_numbers(np.concatenate(parts)) for key, parts in self._numbers.items()}
