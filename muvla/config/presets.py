"""The variants of the published table (μVLA, arXiv 2606.12497), each as published and under control.

Variants are overrides for `muvla.config.serialization.replace`. The two versions of a variant differ in
`confounds(variant)` alone; docs/published.md has a section for each confound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


def no_memory() -> dict[str, Any]:
    """Overrides for a variant without memory."""
    return {"memory.kind": "none", "memory.m": 0}


def dummy(m: int) -> dict[str, Any]:
    """m learned tokens fed unchanged at every tick: more context without memory."""
    return {"memory.kind": "dummy", "memory.m": m}


def tbptt(K: int, m: int) -> dict[str, Any]:
    """Truncated backpropagation through time: the memory is replaced (α = 1), gradient crosses K−1 transitions."""
    return {"memory.kind": "tokens", "memory.m": m, "memory.alpha": 1.0, "truncation": K}


def ema(alpha: float, m: int) -> dict[str, Any]:
    """Exponential moving average, detached at every tick (spec 2.5)."""
    return {"memory.kind": "tokens", "memory.m": m, "memory.alpha": alpha, "truncation": 1}


Version = Literal["published", "controlled"]
M, ALPHA = 64, 0.1  # spec 2.1, 2.5


@dataclass(frozen=True)
class Confound:
    """A field with different values in the published study and in a controlled study."""

    published: Any
    controlled: Any
    section: str  # of docs/published.md
    why: str  # the effect that it would be mistaken for


# Confounds of every variant.
CONFOUNDS = {
    "model.memory_positions": Confound("shift", "reserved", "1.1", "text and action stand elsewhere with other m"),
    "model.chunk": Confound(8, 1, "1.9", "the chunk of a delay frame holds actions of the decision"),
    "data.labels": Confound("recorded", "executed", "4.4", "labels that were never executed tell the target"),
    "data.tail": Confound("repeat", "mask", "4.1", "the last action weighs more in short episodes"),
    "data.statistics": Confound("recorded", "executed", "4.2", "actions that were never executed stretch the scale"),
    # Single frames, which the shuffled variant plays, have no episode to change as one; so no variant is augmented.
    "data.augmentation": Confound("frame", "none", "4.3", "the colour to be remembered is another in every frame"),
    "budget.regime": Confound("published", "matched", "2.4", "K multiplies the frames of an update and of a training"),
    "budget.slots": Confound(32, 4, "5", "without recurrence 32 frames an update in either version"),
    "budget.window": Confound(1, 8, "2.4", "without recurrence 32 frames an update in either version"),
    "optimizer.clip": Confound(None, 1.0, "5", "gradient through K ticks may be K times as large"),
}
# Confounds of the variants without memory, which were trained with the mask of OpenVLA-OFT.
UNGUARDED = {"model.guard": Confound("full", "context", "3.2", "the mask of all tokens changes with the memory")}
# Fields in which two variants of one version may differ.
FACTORS = (
    "memory.kind",
    "memory.m",
    "memory.alpha",
    "truncation",
    "model.guard",
    "data.order",
    "data.first_image",
)

_VARIANTS: dict[str, dict[str, Any]] = {
    "OFT": no_memory() | {"data.order": "shuffled"},  # spec 4.6
    "OFT†": no_memory(),  # by the loader of the variants with memory
    **{f"m={m}, K={K}": tbptt(K, m) for m in (1, M) for K in (1, 2, 8)},
    "EMA": ema(ALPHA, M),
    "EMA, guard full": ema(ALPHA, M) | {"model.guard": "full"},
    f"α={ALPHA}, K=8": tbptt(8, M) | {"memory.alpha": ALPHA},  # the crossing that was not published
    "first image": no_memory() | {"data.first_image": True},  # an oracle for what the first frame shows
}
VARIANTS = tuple(_VARIANTS)


def confounds(variant: str) -> dict[str, Confound]:
    """Field → the two values of a variant's two versions."""
    return CONFOUNDS | (UNGUARDED if _VARIANTS[variant]["memory.kind"] == "none" else {})


def of_version(version: Version) -> dict[str, Any]:
    """The fields that all variants of a version share, for the base of a study."""
    return {field: getattr(confound, version) for field, confound in CONFOUNDS.items()} | {"model.guard": "context"}


def paper_variants(version: Version) -> dict[str, dict[str, Any]]:
    """Variants of a study whose base has `of_version(version)`."""
    further = {variant: confounds(variant).items() - CONFOUNDS.items() for variant in VARIANTS}
    return {
        variant: changes | {field: getattr(c, version) for field, c in further[variant]}
        for variant, changes in _VARIANTS.items()
    }


def single_task(task: str) -> dict[str, dict[str, Any]]:
    """Two variants at one budget: the base with all datasets, and with its first dataset alone, which is `task`'s.

    They belong into a separate study under the protocols of `task`, because a policy with one prompt takes no prompt of
    another length. The published m, K and updates are unknown (spec 8). The variants differ in `data.mixture` alone.
    """
    return {"all tasks": {}, f"{task} alone": {"data.mixture": ()}}
