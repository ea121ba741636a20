"""One donor per episode: of another content, of the same content, or the episode itself.

A donor has the recipient's lengths of blank, cue and delay, so that both are at the same step of the same phase, and it
got to where the schedule first fires.
"""

from __future__ import annotations

from collections.abc import Callable

from muvla.interventions.base import Intervention
from muvla.interventions.donors.assignment import DonorAssignment
from muvla.interventions.donors.donor import Donor, Recipient
from muvla.interventions.donors.lacking import no_donor
from muvla.interventions.donors.recorded import RecordedEpisodes
from muvla.utils.rng import numpy_rng


def assign_other(episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention) -> DonorAssignment:
    fits = lambda donor: donor.remembered not in (recipient.remembered, None)  # noqa: E731
    return _draw(episodes, recipient, intervention, "another target", fits)


def assign_same(episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention) -> DonorAssignment:
    fits = lambda donor: donor.remembered == recipient.remembered and donor.seed != recipient.seed  # noqa: E731
    return _draw(episodes, recipient, intervention, f"target {recipient.remembered}, besides itself", fits)


def assign_self(episodes: RecordedEpisodes, recipient: Recipient, intervention: Intervention) -> DonorAssignment:
    return _draw(episodes, recipient, intervention, "the same seed", lambda donor: donor.seed == recipient.seed)


def _draw(
    episodes: RecordedEpisodes,
    recipient: Recipient,
    intervention: Intervention,
    described: str,
    fits: Callable[[Donor], bool],
) -> DonorAssignment:
    """One of the fitting donors, drawn by the recipient's seed.

    Args:
        episodes: all recorded episodes.
        recipient: the episode that gets the state.
        intervention: its `donor` keys the draw.
        described: the fitting donors in words, for the error.
        fits: True for a fitting donor.

    Raises:
        MuvlaError: if no donor fits.
    """
    alike = [donor for donor in episodes.donors if donor.lengths == recipient.lengths and donor.states]
    pool = [donor for donor in alike if fits(donor)]
    if not pool:
        phases = "blank {}, cue {}, delay {}".format(*recipient.lengths)
        got = f"none among {len(alike)} episodes of {phases} that got to where it fires"
        raise no_donor(intervention, recipient.seed, got, f"an episode of {described} with these lengths")
    donor = pool[int(numpy_rng(recipient.seed, "donor", intervention.donor).integers(len(pool)))]
    return DonorAssignment(donor.seed, donor.remembered, donor.states.get)
