"""The interventions. Each is one function `(state of one slot, context) → state` and one registry line.

Legend: m memory width, D width; leaves of a slot's state are (m, D).
"""

from __future__ import annotations

import torch

from muvla.errors import MuvlaError
from muvla.memory.base import State
from muvla.recurrence import Context, Intervention


def _draw(state: State, context: Context, name: str) -> State:
    """Standard normal leaves of the state's shapes, the same on every device."""
    generator = context.generator(name)
    return {key: torch.randn(leaf.shape, generator=generator).to(leaf) for key, leaf in state.items()}


def noise_unit(state: State, context: Context) -> State:
    """The memory replaced by N(0, 1); the published scale is unknown (μVLA spec 7)."""
    return _draw(state, context, "noise_unit")


def noise_matched(state: State, context: Context) -> State:
    """The memory replaced by normal noise with the mean and standard deviation of its own numbers: two scalars per
    leaf, which carry no content."""
    noise = _draw(state, context, "noise_matched")
    return {key: leaf.mean() + leaf.std(correction=0) * noise[key] for key, leaf in state.items()}


def zero(state: State, context: Context) -> State:
    """The memory replaced by zeros; the tokens stay in the sequence."""
    return {key: torch.zeros_like(leaf) for key, leaf in state.items()}


def freeze_first(state: State, context: Context) -> State:
    """The memory locked to M₁, the output of the episode's first step, from t = 1 on (spec 7)."""
    return context.history[0] if context.history else state


INTERVENTIONS = {
    kind.name: kind
    for kind in (
        Intervention("noise_unit", "before_read", noise_unit, "moves"),
        Intervention("noise_matched", "before_read", noise_matched, "moves"),
        Intervention("zero", "before_read", zero, "freezes"),
        Intervention("freeze_first", "after_write", freeze_first, "freezes"),
    )
}


def intervention(name: str | None) -> Intervention | None:
    """By name; None and "none" are no intervention. Raises MuvlaError for an unknown one."""
    if name in (None, "none"):
        return None
    if name not in INTERVENTIONS:
        raise MuvlaError(
            "intervention", got=name, expected=f"none or one of {', '.join(INTERVENTIONS)}", remedy="correct the name"
        )
    return INTERVENTIONS[name]
