"""The kinds of interventions. Each is one function `(state of one slot, context) → state` and one registry line.

Legend: m memory width, D width; leaves of a slot's state are (m, D). Where only some tokens are intervened upon, a
function sees these alone, and m is their number. At the site `read` the state is {"tokens": what was read}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from muvla.interventions.base import SITES, Context, Effect, Site
from muvla.interventions.schedule import Schedule, parse_schedule
from muvla.memory.base import State

INIT_STD = 0.02  # of the published initial memory (μVLA spec 2.1)
IDENTITY = "identity"  # the argument with which `permute_tokens` changes nothing


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
    """Every token replaced by normal noise of the token's own L2 norm (spec 7)."""
    noise = _draw(state, context, "noise_norm")
    return {
        key: noise[key] * (leaf.norm(dim=-1, keepdim=True) / noise[key].norm(dim=-1, keepdim=True))
        for key, leaf in state.items()
    }


def noise_matched(state: State, context: Context) -> State:
    """The memory replaced by normal noise with the mean and standard deviation of its own numbers: two scalars per
    leaf, which carry no content."""
    noise = _draw(state, context, "noise_matched")
    return {key: leaf.mean() + leaf.std(correction=0) * noise[key] for key, leaf in state.items()}


def noise_relative(state: State, context: Context) -> State:
    """The memory plus σ·rms·N(0, 1), with the root mean square of each leaf (MemoryVLA spec 12.5). All σ share their
    draws. Identity: σ = 0."""
    noise = _draw(state, context, "noise_relative")
    return {key: leaf + context.argument * leaf.square().mean().sqrt() * noise[key] for key, leaf in state.items()}


def zero(state: State, context: Context) -> State:
    """The memory replaced by zeros; the tokens stay in the sequence."""
    return {key: torch.zeros_like(leaf) for key, leaf in state.items()}


def empty(state: State, context: Context) -> State:
    """The memory back at its initial state, as if the episode began with the next tick (spec 7; MemoryVLA spec 12.5).
    What the tick itself wrote is lost."""
    return context.initial


def freeze_first(state: State, context: Context) -> State:
    """The memory locked to M₁, the output of the episode's first step, from t = 1 on (spec 7)."""
    return context.history[0] if context.history else state


def freeze(state: State, context: Context) -> State:
    """The memory locked to what was written at the first tick at which this fires: `freeze@0..` is `freeze_first`."""
    return context.history[context.since] if context.since < len(context.history) else state


def permute_tokens(state: State, context: Context) -> State:
    """The tokens in another order, in which none keeps its place; one order per episode, whatever the tick. With the
    argument `identity`, the order that they have. A single token has no other order."""
    if context.argument == IDENTITY:
        return state
    m = len(next(iter(state.values())))
    ring = torch.randperm(m, generator=context.generator("permute_tokens", per_tick=False))
    order = torch.empty_like(ring)
    order[ring] = ring.roll(1)  # one cycle through all of them has no fixed point
    return {key: leaf[order.to(leaf.device)] for key, leaf in state.items()}


def stale(state: State, context: Context) -> State:
    """The memory of d ticks ago, the initial one before there is such (MemoryVLA spec 12.5). Identity: d = 0."""
    if context.argument == 0:
        return state
    past = [context.initial, *context.history]
    return past[max(0, len(past) - 1 - context.argument)]


def given(state: State, context: Context) -> State:
    """The memory replaced by the donor's."""
    return {key: context.donor[key].to(leaf) for key, leaf in state.items()}


def added(state: State, context: Context) -> State:
    """The memory plus what the donors give."""
    return {key: leaf + context.donor[key].to(leaf) for key, leaf in state.items()}


def drop(state: State, context: Context) -> State:
    """Which tokens are not in the sequence: all of them. What a policy without them computes (MemoryVLA spec 12.5,
    drop-read), in the words of text and actions at their own positions."""
    return {key: torch.ones(len(leaf), dtype=torch.bool) for key, leaf in state.items()}


def lesion(state: State, context: Context) -> State:
    """Which tokens are not in the sequence: the i-th."""
    return {key: torch.arange(len(leaf)) == context.argument for key, leaf in state.items()}


@dataclass(frozen=True)
class Kind:
    """A registry line.

    `effect`: see `muvla.recurrence.Intervention`. `argument` reads the text in brackets, None where there is none, and
    `example` is one that bites. `donor` names what other episodes give to the function (`muvla.interventions.donors`).
    What `removes` tells which tokens are removed, (m,) bool, in place of a state. `sham` is the kind that does the same
    without what this one is about. `whole` says why it cannot be confined to some tokens, where it cannot.
    """

    name: str
    site: Site
    function: Callable[..., State]
    effect: Effect
    argument: Callable[[str], Any] | None = None
    example: str = ""
    schedule: Schedule | None = None  # where none is told; None is always
    sites: tuple[Site, ...] = SITES
    donor: str | None = None
    removes: bool = False
    sham: str | None = None
    whole: str = ""


def _natural(text: str) -> int:
    return int(text) if text.isdecimal() else _refuse("a whole number ≥ 0")


def _scale(text: str) -> float:
    number = float(text)
    return number if 0 <= number < float("inf") else _refuse("a finite number ≥ 0")


def _identity(text: str) -> str:
    return text if text in ("", IDENTITY) else _refuse(f"nothing, or {IDENTITY}")


def _refuse(expected: str) -> Any:
    raise ValueError(expected)


_STATES: tuple[Site, ...] = ("before_read", "after_write")  # where the carried state itself is at hand
_ONCE = parse_schedule("delay_end")
_DECODED = "its decoder, its norm and its sham's right angle are of the whole state"

INTERVENTIONS = {
    kind.name: kind
    for kind in (
        Kind("noise_unit", "before_read", noise_unit, "moves"),
        Kind("noise_init", "before_read", noise_init, "moves"),
        Kind("noise_norm", "before_read", noise_norm, "moves"),
        Kind("noise_matched", "before_read", noise_matched, "moves"),
        Kind("noise_relative", "before_read", noise_relative, "any", _scale, "1"),
        Kind("zero", "before_read", zero, "freezes"),
        Kind("empty", "after_write", empty, "freezes", sites=_STATES),
        Kind("freeze_first", "after_write", freeze_first, "freezes", sites=_STATES),
        Kind("freeze", "after_write", freeze, "freezes", sites=_STATES),
        Kind("permute_tokens", "before_read", permute_tokens, "keeps", _identity),
        Kind("stale", "before_read", stale, "any", _natural, "2", sites=("before_read",)),  # history is what was read
        Kind("drop", "read", drop, "freezes", sites=("read",), removes=True),
        Kind(
            "lesion",
            "read",
            lesion,
            "any",
            _natural,
            "0",
            sites=("read",),
            removes=True,
            whole="its argument is the token",
        ),
        Kind("mean", "before_read", given, "any", donor="mean"),
        Kind("transplant", "after_write", given, "any", schedule=_ONCE, donor="other", sham="transplant_same"),
        Kind("transplant_same", "after_write", given, "any", schedule=_ONCE, donor="same"),
        Kind("transplant_self", "after_write", given, "any", schedule=_ONCE, donor="self"),
        Kind(
            "direction",
            "after_write",
            added,
            "any",
            _scale,
            "4",
            _ONCE,
            donor="direction",
            sham="orthogonal",
            whole=_DECODED,
        ),
        Kind("orthogonal", "after_write", added, "any", _scale, "4", _ONCE, donor="orthogonal", whole=_DECODED),
    )
}
