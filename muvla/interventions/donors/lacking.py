"""The error for an episode that no other episode can give to."""

from __future__ import annotations

from muvla.errors import MuvlaError
from muvla.interventions.base import Intervention


def no_donor(intervention: Intervention, seed: int, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        f"intervention {intervention.name}, donors of episode seed {seed}",
        got=got,
        expected=expected,
        remedy="fix the lengths of the phases (task.cue, task.delay), or evaluate more episodes",
    )
