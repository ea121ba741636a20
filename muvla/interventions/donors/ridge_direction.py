"""A linear decoder's direction in the memory, from what an episode remembers to another thing."""

from __future__ import annotations

import numpy as np
import torch

from muvla.interventions.base import Intervention
from muvla.interventions.donors.assignment import DonorAssignment
from muvla.interventions.donors.donor import Recipient
from muvla.interventions.donors.lacking import no_donor
from muvla.interventions.donors.recorded import RecordedEpisodes
from muvla.interventions.donors.ridge_decoder import fit
from muvla.utils.rng import key, numpy_rng


def assign_direction(episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention) -> DonorAssignment:
    """s times the distance of the two class means, along the difference of the two classes' weights.

    The decoder is fitted on the half of the episodes that the recipient is not in.
    """
    return _assign(episodes, recipient, intervention, orthogonal=False)


def assign_orthogonal(episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention) -> DonorAssignment:
    """A drawn direction, orthogonal to that of `assign_direction` and of its norm."""
    return _assign(episodes, recipient, intervention, orthogonal=True)


def _assign(
    episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention, orthogonal: bool
) -> DonorAssignment:
    seed, remembered = recipient.seed, recipient.remembered
    half = 1 - half_of(seed)
    if half not in episodes.fitted:
        episodes.fitted[half] = fit([d for d in episodes.donors if half_of(d.seed) == half and d.states])
    decoder = episodes.fitted[half]
    others = [c for c in decoder.classes if c != remembered]
    if remembered not in decoder.classes or not others:
        got = f"targets {decoder.classes} in the other half"
        raise no_donor(intervention, seed, got, f"target {remembered} and another target")
    towards = others[int(numpy_rng(seed, "direction", "target").integers(len(others)))]
    start, stop = decoder.classes.index(remembered), decoder.classes.index(towards)
    along = decoder.weights[stop] - decoder.weights[start]
    distance = np.linalg.norm(decoder.means[stop] - decoder.means[start])
    unit = along / (np.linalg.norm(along) or 1.0)  # where nothing can be told apart, nothing is added
    if orthogonal:
        drawn = numpy_rng(seed, "direction", "orthogonal").standard_normal(len(unit))
        drawn -= (drawn @ unit) * unit
        unit = drawn / np.linalg.norm(drawn)
    delta = torch.from_numpy((intervention.argument * distance * unit).astype(np.float32))
    sizes = [int(np.prod(shape)) for shape in decoder.shapes.values()]
    parts = dict(zip(decoder.shapes, delta.split(sizes), strict=True))
    added = {name: part.view(decoder.shapes[name]) for name, part in parts.items()}
    return DonorAssignment(None, towards, lambda step: added)


def half_of(seed: int) -> int:
    """The half of the episodes, 0 or 1, that an episode belongs to."""
    return key(seed, "direction", "half") % 2
