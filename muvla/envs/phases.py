"""Phases of an episode, shared by every environment, store and intervention."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Phase(IntEnum):
    UNKNOWN = 0  # of imported demonstrations, which do not tell; environments always know
    CUE = 1
    DELAY = 2
    DECISION = 3
    NO_OP = 4  # cue or delay, of imported demonstrations where only that was derived (`muvla.data.derived_phases`)
    BLANK = 5  # before the cue: nothing is shown


# In these phases the simulator applies no action (μVLA spec 4.4), whatever the policy or the expert emits; but for
# MIKASA's tasks that are `free` (`muvla.envs.mikasa.tasks`), which have no demonstrations of ours.
NO_OP_PHASES = (Phase.BLANK, Phase.CUE, Phase.DELAY, Phase.NO_OP)

EVENTS = ("cue_end", "delay_end", "first_decision")


def events(info: Mapping[str, Any]) -> dict[str, int]:
    """The step of each phase event of an episode, from the lengths in an environment's or a demonstration's `info`: the
    cue's last step, the delay's last step, the decision's first. A phase that the episode lacks has no end, and one
    without any no-op phase has no first decision that would be an event."""
    blank, cue, delay = (info.get(f"{name}_length") or 0 for name in ("blank", "cue", "delay"))
    found = {"cue_end": blank + cue - 1} if cue else {}
    found |= {"delay_end": blank + cue + delay - 1} if delay else {}
    return found | ({"first_decision": blank + cue + delay} if found else {})
