"""Phases of an episode, shared by every environment, store and intervention."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    UNKNOWN = 0  # of imported demonstrations, which do not tell; environments always know
    CUE = 1
    DELAY = 2
    DECISION = 3
    NO_OP = 4  # cue or delay, of imported demonstrations where only that was derived (`muvla.data.derivation`)


# In these phases the simulator applies no action (μVLA spec 4.4), whatever the policy or the expert emits.
NO_OP_PHASES = (Phase.CUE, Phase.DELAY, Phase.NO_OP)
