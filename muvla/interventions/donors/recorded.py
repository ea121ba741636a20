"""The recorded episodes of one protocol, and sums over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from muvla.interventions.donors.donor import Donor
from muvla.interventions.donors.ridge_decoder import RidgeDecoder
from muvla.memory.base import float_leaves
from muvla.memory.contract import State


@dataclass(frozen=True)
class RecordedEpisodes:
    """All donors, and what is computed of them once."""

    donors: tuple[Donor, ...]  # by seed
    fitted: dict[int, RidgeDecoder] = field(default_factory=dict)  # decoders, by the half of the episodes

    @cached_property
    def by_seed(self) -> dict[int, Donor]:
        return {donor.seed: donor for donor in self.donors}

    @cached_property
    def sums(self) -> dict[tuple[int, int], tuple[int, State]]:
        """(phase, step into it) → number of episodes, and the sum of their float leaves in float64."""
        states_at: dict[tuple[int, int], list[State]] = {}
        for donor in self.donors:
            for place, state in donor.by_place.items():
                states_at.setdefault(place, []).append(float_leaves(state))
        return {
            place: (
                len(states),
                {name: torch.stack([state[name].double() for state in states]).sum(dim=0) for name in states[0]},
            )
            for place, states in states_at.items()
        }

    @cached_property
    def longest(self) -> dict[int, int]:
        """Phase → the last step into it that at least half of the episodes with a state in it reach."""
        last: dict[int, list[int]] = {}
        for donor in self.donors:
            for phase in {phase for phase, _ in donor.by_place}:
                last.setdefault(phase, []).append(max(into for p, into in donor.by_place if p == phase))
        return {phase: sorted(ends)[len(ends) // 2] for phase, ends in last.items()}
