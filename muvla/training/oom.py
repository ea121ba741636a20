"""Out of memory, in words: what took it, and which knob would save how much.

Legend: W window, B slots, K truncation length, V cameras, P patches, S sequence, D width.

The estimates count the activations that backward passes need, roughly (benchmarks/window.md has them measured): of a
block of the language model 12 vectors of width D and 4 of its MLP per token, of a block of a tower 8 and 2. Weights,
gradients and moments come on top, and none of these knobs but the precision changes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from muvla.config import Cell, canonical
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.models.policy import Interface

# How torch says it on a CPU (Linux, macOS; Windows), on a GPU, and for a library of CUDA's that gets no workspace.
SAID = ("can't allocate memory", "not enough memory", "CUDA out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Activations:
    """Bytes that live at once in the training of a cell."""

    ticks: int  # whose graphs live at once
    slots: int
    tokens: int  # S
    images: int  # W·B·V
    language: float
    towers: float

    @property
    def total(self) -> float:
        return self.language + self.towers


def activations(cell: Cell, interface: Interface, checkpointing: bool = False, ranks: int = 1) -> Activations:
    """With `checkpointing`, a block's input, and one block at a time in full. Of several ranks, each has its part of
    the slots. Frozen towers hold none, cached or not: no backward pass goes through them."""
    cell = canonical(cell)
    size, budget, number = cell.model.size, cell.budget, 2 if cell.model.precision == "bfloat16" else 4
    slots = budget.slots // ranks
    images = budget.window * slots * interface.cameras
    tokens = 1 + interface.cameras * size.patches + cell.model.proprio + cell.memory.m + interface.text
    tokens += cell.model.chunk * interface.action_dim + 1
    ticks = cell.truncation if cell.truncation_from == "window" else budget.window

    def of_blocks(rows: int, layers: int, width: int, block: int) -> float:
        return number * rows * (layers * width + block if checkpointing else layers * block)

    language = of_blocks(ticks * slots * tokens, size.layers, size.width, 12 * size.width + 4 * size.mlp)
    towers = sum(
        of_blocks(images * size.patches, tower.layers - 1, tower.width, 8 * tower.width + 2 * tower.mlp)
        for tower in (size.dino, size.siglip)
        if cell.model.vision == "trained"
    )
    return Activations(ticks, slots, tokens, images, language, towers)


def knobs(cell: Cell, interface: Interface, checkpointing: bool, ranks: int = 1) -> dict[str, float]:
    """What would help → the share of the activations that it saves; the best first, what does not apply left out."""
    K, budget = cell.truncation, cell.budget
    window = {"budget.window": budget.window // 2}
    if budget.window < 2 * K:  # a block is no longer than its window
        window["truncation"] = budget.window // 2
    options = [{"budget.slots": budget.slots // 2}, window, {"truncation": K // 2}, {"model.precision": "bfloat16"}]
    totals = {
        "--gradient-checkpointing (the same numbers, in more time)": activations(cell, interface, True, ranks).total
    }
    for changes in options:
        with contextlib.suppress(MuvlaError):  # no cell can be so
            name = ", ".join(f"{field}={value}" for field, value in changes.items())
            totals[name] = activations(replace(cell, changes), interface, checkpointing, ranks).total
    shown = dataclasses.replace(interface, cameras=1 + interface.first_image)
    totals[f"data.cameras=1, of {interface.cameras - interface.first_image}"] = activations(
        cell, shown, checkpointing, ranks
    ).total
    now = activations(cell, interface, checkpointing, ranks).total
    saved = {name: 1 - then / now for name, then in totals.items() if then < 0.99 * now}
    return dict(sorted(saved.items(), key=lambda item: -item[1]))


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)


@contextlib.contextmanager
def memory_explained(cell: Cell, interface: Interface, checkpointing: bool, ranks: int = 1) -> Iterator[None]:
    """Where memory does not suffice, raises MuvlaError with the knobs and what each would save."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        used = activations(cell, interface, checkpointing, ranks)
        language, towers = (f"{part / 2**30:.2g} GB" for part in (used.language, used.towers))
        saved = "; ".join(
            f"{name}: {share:.0%}" for name, share in knobs(cell, interface, checkpointing, ranks).items()
        )
        raise MuvlaError(
            "memory",
            got=f"too little of it ({' '.join(str(error).split())[:160]})",
            expected=f"for activations about {language} of the language model (K = {used.ticks} ticks of "
            f"{used.slots} slots of {used.tokens} tokens) and {towers} of the towers ({used.images} "
            "images in a window), and on top weights, gradients and moments",
            remedy=f"of the activations, about so much is saved by {saved}. Changed fields are another cell. The last "
            "checkpoint stays: `--retry-failed` continues from it",
        ) from error
