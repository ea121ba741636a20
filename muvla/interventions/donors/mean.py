"""The mean memory of the other episodes, at the same phase and step into it.

Past the last step of a phase that at least half of the recorded episodes reach, the mean is held.
"""

from __future__ import annotations

from muvla.interventions.base import Intervention
from muvla.interventions.donors.assignment import DonorAssignment
from muvla.interventions.donors.donor import Recipient, place_of
from muvla.interventions.donors.lacking import no_donor
from muvla.interventions.donors.recorded import RecordedEpisodes
from muvla.memory.contract import State


def assign_mean(episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention) -> DonorAssignment:
    seed, sums, longest = recipient.seed, episodes.sums, episodes.longest
    itself = episodes.by_seed[seed].by_place if seed in episodes.by_seed else {}

    def state(step: int) -> State | None:
        phase, into = place_of(recipient.lengths, step)
        into = min(into, longest.get(phase, into))
        reached = [i for p, i in sums if p == phase and i <= into and sums[p, i][0] > ((p, i) in itself)]
        if not reached:
            return None
        place = phase, max(reached)
        n, total = sums[place]
        if place in itself:
            n, total = n - 1, {name: leaf - itself[place][name] for name, leaf in total.items()}
        return {name: (leaf / n).float() for name, leaf in total.items()}

    if not any(donor.states for donor in episodes.donors if donor.seed != seed):
        raise no_donor(intervention, seed, "no other episode that got to where it fires", "at least one such episode")
    return DonorAssignment(None, None, state)
