"""Noise in place of the memory, or on top of it.

Legend: m units, D width; a leaf of a slot's state is (m, D) or any other shape.
"""

from __future__ import annotations

import torch

from muvla.interventions.arguments import scale
from muvla.interventions.context import Context
from muvla.interventions.kind import InterventionKind
from muvla.memory.contract import State

INIT_STD = 0.02  # of the published initial memory (μVLA spec 2.1)


def _draw(state: State, context: Context, name: str) -> State:
    """Standard normal leaves of the state's shapes, the same on every device."""
    generator = context.generator(name)
    return {key: torch.randn(leaf.shape, generator=generator).to(leaf) for key, leaf in state.items()}


def noise_unit(state: State, context: Context) -> State:
    """The memory replaced by N(0, 1); the published scale is unknown (μVLA spec 7)."""
    return _draw(state, context, "noise_unit")


def noise_init(state: State, context: Context) -> State:
    """The memory replaced by N(0, 0.02²), the scale that the initial tokens were drawn with (spec 2.1, 7)."""
    return {key: INIT_STD * noise for key, noise in _draw(state, context, "noise_init").items()}


def noise_norm(state: State, context: Context) -> State:
    """Every token replaced by normal noise of the token's L2 norm (spec 7)."""
    noise = _draw(state, context, "noise_norm")
    return {
        key: noise[key] * (leaf.norm(dim=-1, keepdim=True) / noise[key].norm(dim=-1, keepdim=True))
        for key, leaf in state.items()
    }


def noise_matched(state: State, context: Context) -> State:
    """The memory replaced by normal noise of the memory's mean and standard deviation.

    Mean and standard deviation are two scalars per leaf, over all numbers of the leaf, and carry no content.
    """
    noise = _draw(state, context, "noise_matched")
    return {key: leaf.mean() + leaf.std(correction=0) * noise[key] for key, leaf in state.items()}


def noise_relative(state: State, context: Context) -> State:
    """The memory plus σ·rms·N(0, 1), with rms the root mean square of each leaf.

    All σ share their draws.
    """
    noise = _draw(state, context, "noise_relative")
    return {key: leaf + context.argument * leaf.square().mean().sqrt() * noise[key] for key, leaf in state.items()}


NOISE_UNIT = InterventionKind("noise_unit", "before_read", noise_unit, "moves")
NOISE_INIT = InterventionKind("noise_init", "before_read", noise_init, "moves")
NOISE_NORM = InterventionKind("noise_norm", "before_read", noise_norm, "moves")
NOISE_MATCHED = InterventionKind("noise_matched", "before_read", noise_matched, "moves")
NOISE_RELATIVE = InterventionKind("noise_relative", "before_read", noise_relative, "any", scale, "1", identity=0.0)
