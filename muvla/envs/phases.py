"""The phases of an episode, which environments, stores and interventions share."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Phase(IntEnum):
    UNKNOWN = 0  # in imported demonstrations without phases; never in an environment
    CUE = 1
    DELAY = 2
    DECISION = 3
    NO_OP = 4  # cue or delay, in imported demonstrations whose phases were derived (`muvla.data.derived_phases`)
    BLANK = 5  # before the cue: nothing is shown


# In these phases the simulator applies no action, whatever the policy or the expert emits (μVLA spec 4.4). MIKASA's
# `free` tasks are the exception (`muvla.envs.mikasa.tasks`); their experts collect no demonstrations.
NO_OP_PHASES = (Phase.BLANK, Phase.CUE, Phase.DELAY, Phase.NO_OP)

EVENTS = ("cue_end", "delay_end", "first_decision", "update")


def events(info: Mapping[str, Any]) -> dict[str, int]:
    """Event → step in the episode, from the phase lengths in `info` of an environment or a demonstration.

    The events are the last step of the cue, the last step of the delay, the first step of the decision, and the step
    that shows the last change of what must be known (`update`), where the delay changes it. A phase that the episode
    lacks has no end. An episode without cue and delay has no event at all.
    """
    blank, cue, delay = (info.get(f"{name}_length") or 0 for name in ("blank", "cue", "delay"))
    steps = {"cue_end": blank + cue - 1} if cue else {}
    steps |= {"delay_end": blank + cue + delay - 1} if delay else {}
    steps |= {"update": info["update_step"]} if info.get("update_step") is not None else {}
    return steps | ({"first_decision": blank + cue + delay} if steps else {})
