"""The recorded episodes of a protocol, for one intervention that takes from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from muvla.errors import MuvlaError
from muvla.interventions.base import Intervention
from muvla.interventions.donors.assignment import NOTHING, DonorAssignment
from muvla.interventions.donors.donor import Donor, Recipient, lengths_of, remembered
from muvla.interventions.donors.lacking import no_donor
from muvla.interventions.donors.mean import assign_mean
from muvla.interventions.donors.recorded import RecordedEpisodes
from muvla.interventions.donors.ridge_direction import assign_direction, assign_orthogonal
from muvla.interventions.donors.single import assign_other, assign_same, assign_self

ASSIGNERS: dict[str, Callable[[RecordedEpisodes, Recipient, Intervention], DonorAssignment]] = {
    "other": assign_other,
    "same": assign_same,
    "self": assign_self,
    "mean": assign_mean,
    "direction": assign_direction,
    "orthogonal": assign_orthogonal,
}


@dataclass(frozen=True)
class DonorBank:
    donors: tuple[Donor, ...]  # by seed
    intervention: Intervention

    def assign(self, seed: int, info: Mapping[str, Any]) -> DonorAssignment:
        """Returns the content that the episode gets.

        Args:
            seed: of the episode.
            info: of its environment: what the episode remembers, where this lies, and the lengths of its phases.

        Raises:
            MuvlaError: if there is no donor for the episode.
        """
        recipient = Recipient(seed, remembered(info), lengths_of(info))
        if self.intervention.donor != "mean" and recipient.remembered is None:
            expected = "a task in which something is chosen"
            raise no_donor(self.intervention, seed, "a task without target", expected)
        recorded = self.episodes.by_seed.get(seed)
        if recorded is not None and not recorded.states:
            return NOTHING  # the episode ends before the schedule fires
        assignment = ASSIGNERS[self.intervention.donor](self.episodes, recipient, self.intervention)
        places = info.get("places_of")
        if places is None or assignment.target is None:
            return assignment
        return replace(assignment, target=places[assignment.target])

    def require(self) -> None:
        """Raises MuvlaError if one of the recorded episodes lacks a donor, before any is run with the intervention."""
        names = ("blank_length", "cue_length", "delay_length")
        for donor in self.donors:
            lengths = dict(zip(names, donor.lengths, strict=True))
            self.assign(donor.seed, {"target": donor.remembered, **lengths})

    def require_spec(self, spec: Mapping[str, tuple[int, ...]]) -> None:
        """Requires donors of the mechanism and the capacity that receive their states.

        Args:
            spec: leaf → shape of one slot's state, see `Memory.state_spec`.

        Raises:
            MuvlaError: a donor's state has other leaves or shapes. States at the site `read` are not checked.
        """
        if self.intervention.site == "read":
            return
        for donor in self.donors:
            for state in donor.states.values():
                shapes = {name: tuple(leaf.shape) for name, leaf in state.items()}
                if shapes != dict(spec):
                    raise MuvlaError(
                        f"intervention {self.intervention.name}, donors",
                        got=f"a state {shapes} of episode seed {donor.seed}",
                        expected=f"{dict(spec)}, the state of the mechanism and capacity that are evaluated",
                        remedy="record the donors with this policy: `muvla intervene` does without a bank of donors",
                    )

    @cached_property
    def episodes(self) -> RecordedEpisodes:
        return RecordedEpisodes(self.donors)
