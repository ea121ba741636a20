"""A linear decoder of what an episode remembers.

Legend: n episodes, P numbers in a slot's state, C targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from muvla.interventions.donors.donor import Donor
from muvla.memory.base import float_leaves


@dataclass(frozen=True)
class RidgeDecoder:
    """Ridge regression of indicators of the targets on the float leaves of a state."""

    classes: list[int]  # the targets
    means: np.ndarray  # (C, P)
    weights: np.ndarray  # (C, P)
    shapes: dict[str, torch.Size]  # of the leaves


def fit(donors: list[Donor]) -> RidgeDecoder:
    """The regression in its dual form: n is small and P is not. The ridge is the mean of the Gram matrix's diagonal."""
    classes = sorted({donor.remembered for donor in donors} - {None})
    if not classes:
        return RidgeDecoder([], np.empty(0), np.empty(0), {})
    donors = [donor for donor in donors if donor.remembered is not None]
    states = [float_leaves(next(iter(donor.states.values()))) for donor in donors]
    x = torch.stack([torch.cat([leaf.flatten() for leaf in state.values()]) for state in states]).double().numpy()
    y = np.array([[donor.remembered == c for c in classes] for donor in donors], dtype=np.float64)
    means = np.stack([x[y[:, i] == 1].mean(axis=0) for i in range(len(classes))])
    centred = x - x.mean(axis=0)
    gram = centred @ centred.T
    ridge = np.trace(gram) / len(x) or 1.0
    weights = np.linalg.solve(gram + ridge * np.eye(len(x)), y - y.mean(axis=0)).T @ centred
    return RidgeDecoder(classes, means, weights, {name: leaf.shape for name, leaf in states[0].items()})
