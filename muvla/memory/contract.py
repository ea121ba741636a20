"""Records that the policy and a memory mechanism exchange during one tick.

Legend: B slots, V cameras, P patches, F features of a patch, T text, Q proprio, m MEMORY tokens, D width of the
language model, H chunk, A action dim.

`Recurrence` fills these records at every tick and passes them to the mechanism. None of them holds a state at an ACTION
row: under the guard `context`, memory and retrieved content are therefore independent of ACTION embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

State = dict[str, Tensor]  # leaf → tensor whose first dimension is the slot; float, integer or bool
Observation = Literal["features", "pixels"]  # parts of an observation that are kept only where a mechanism asks


@dataclass(frozen=True)
class Dimensions:
    """Sizes of the policy that a mechanism is built for. A size of 0 is not known where the mechanism is built."""

    width: int  # D
    features: int = 0  # F, numbers per patch before the projector
    vision: int = 0  # V·P
    proprio: int = 0  # Q
    chunk: int = 0  # H
    action: int = 0  # A
    cameras: int = 1  # V
    image_size: int = 0  # s, pixels of an image's side
    states: int = 0  # states that the head reads, where these are not H·A


@dataclass(frozen=True)
class Clock:
    """Where each slot stands in its episode. All tensors are (B,) on the policy's device."""

    step: Tensor  # environment step, integer
    query: Tensor  # ticks of the episode before this tick, integer
    is_first: Tensor  # bool, the episode starts with this tick
    valid: Tensor  # bool, the slot has a tick now; where False, `Recurrence` discards what is written


@dataclass(frozen=True)
class Observed:
    """This tick's observation, encoded."""

    vision: Tensor  # (B, V·P, D) projected patches
    text: Tensor  # (B, T, D) embedded prompt, padded on the left
    text_lengths: Tensor  # (B,)
    proprio: Tensor | None = None  # (B, Q) normalised
    features: Tensor | None = None  # (B, V, P, F) before the projector; for a mechanism that observes `features`
    pixels: Tensor | None = None  # (B, V, 3, s, s) uint8; for a mechanism that observes `pixels`
    encode: Callable[[Tensor], Tensor] | None = None  # pixels (B, V', 3, s, s) → projected patches (B, V'·P, D)


@dataclass(frozen=True)
class Taps:
    """Final hidden states, after the closing norm, that a mechanism may query with and write."""

    memory: Tensor  # (B, m, D) at the MEMORY rows; at the row of an absent token the numbers mean nothing
    text: Tensor | None = None  # (B, D) at the last TEXT row
    observed: Observed | None = None  # this tick's observation


@dataclass(frozen=True)
class Read:
    """MEMORY tokens that go into the sequence."""

    tokens: Tensor  # (B, m, D)
    present: Tensor | None = None  # (B, m) bool; an absent token is not in the sequence. None: all are present
    retrieved: Retrieved | None = None  # the content that the tokens were made of, where a store was searched


@dataclass(frozen=True)
class Retrieved:
    """The result of a search of the store, before or after the model's pass."""

    content: Tensor  # (B, …) fused with the query where the mechanism fuses
    gates: Tensor | None = None  # (B, …) for diagnosis
    attention: Tensor | None = None  # (B, …) for diagnosis
    present: Tensor | None = None  # (B, n) bool, the content's entries that hold something. None: all do
    skipped: Tensor | None = None  # (B,) bool, slots in which the head reads its own states. None: no slot
    # For an action expert alone: the perceptual tokens (B, n, d), fused, and as this tick's observation gives them.
    perception: Tensor | None = None
    perception_now: Tensor | None = None
    entry: State | None = None  # the parts (B, …) of this tick's entry that are known at the search, for the write


@dataclass(frozen=True)
class Conditions:
    """Sizes of the condition that a mechanism gives to an action expert."""

    window: int | None = None  # M + 1 features, the current feature last. None: a single feature
    perception: int = 0  # d, width of the perceptual tokens; 0 without


@dataclass(frozen=True)
class Units:
    """The parts of a state that `[a:b]` of an intervention counts.

    A leaf of `leaves` is (B, count, …); an intervention on units a to b acts on the rows a to b of these leaves.
    """

    name: str = "units"  # plural noun for errors: tokens, entries, frames
    count: int = 0
    leaves: tuple[str, ...] = ()
    times: tuple[str, ...] = ()  # those of `leaves` that hold times (B, count), which no element-wise change touches
    counts: tuple[str, ...] = ()  # those that hold the writes of each unit (B, count), in the order of `times`
