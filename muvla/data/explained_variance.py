"""R² of predicted actions over episodes, with its bootstrap interval.

Legend: E episodes, A action dim.
"""

from __future__ import annotations

import numpy as np

from muvla.utils.rng import numpy_rng

RESAMPLED = 1000  # bootstrap samples over episodes


def explained_variance(
    actions: np.ndarray, predicted: np.ndarray, baseline: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Returns R² over episodes and all dimensions that vary, each scaled by its spread, and its 95 % interval.

    Args:
        actions: (E, A) true actions.
        predicted: (E, A) predictions for episodes outside the fit.
        baseline: (E, A) predictions that know no feature; None is the mean of `actions`.

    Returns:
        R² and its limits; zeros where no dimension varies.
    """
    spread = actions.std(axis=0)
    varies = spread > 1e-6
    if not varies.any():
        return 0.0, 0.0, 0.0
    true, predicted = actions[:, varies] / spread[varies], predicted[:, varies] / spread[varies]
    plain = true.mean(axis=0) if baseline is None else baseline[:, varies] / spread[varies]
    error = ((true - predicted) ** 2).sum(axis=1)
    total = ((true - plain) ** 2).sum(axis=1)
    rows = numpy_rng(0, "label audit").integers(len(error), size=(RESAMPLED, len(error)))
    sampled = 1 - error[rows].sum(axis=1) / total[rows].sum(axis=1)
    low, high = np.quantile(sampled, [0.025, 0.975])
    return float(1 - error.sum() / total.sum()), float(low), float(high)
