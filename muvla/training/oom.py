"""Out of memory: the error names the largest consumers and estimates what each option would save.

Legend: W window, B slots, K truncation length, V cameras, P patches, S sequence, D width.

The estimates roughly count the activations that backward passes need (benchmarks/window.md has measurements). A block
of the language model holds 12 vectors of width D and 4 of its MLP per token, a block of a tower 8 and 2. Weights,
gradients and moments come on top. Precision is the only option here that changes them.
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

# Texts of torch's errors on a CPU (Linux, macOS; Windows), on a GPU, and from a CUDA library without workspace.
OOM_MESSAGES = ("can't allocate memory", "not enough memory", "CUDA out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Activations:
    """Bytes of activations that live at once in the training of a cell."""

    ticks: int  # ticks whose graphs live at once
    slots: int
    tokens: int  # S
    images: int  # W·B·V
    language: float
    towers: float

    @property
    def total(self) -> float:
        return self.language + self.towers


def estimate_activations(cell: Cell, interface: Interface, checkpointing: bool = False, ranks: int = 1) -> Activations:
    """Estimates the activations of a training.

    Frozen towers hold none, cached or not, because no backward pass goes through them.

    Args:
        cell: the training's cell.
        interface: cameras, prompt length and action dimension.
        checkpointing: gradient checkpointing holds the input of every block and one whole block.
        ranks: number of processes; each holds its share of the slots.
    """
    cell = canonical(cell)
    size, budget, number = cell.model.size, cell.budget, 2 if cell.model.precision == "bfloat16" else 4
    slots = budget.slots // ranks
    images = budget.window * slots * interface.cameras
    tokens = 1 + interface.cameras * size.patches + cell.model.proprio + cell.memory.tokens + interface.text
    tokens += cell.model.chunk * interface.action_dim + 1
    ticks = cell.truncation if cell.truncation_from == "window" else budget.window

    def _of_blocks(rows: int, layers: int, width: int, block: int) -> float:
        """Returns the bytes of `layers` blocks that hold `block` numbers per row."""
        return number * rows * (layers * width + block if checkpointing else layers * block)

    language = _of_blocks(ticks * slots * tokens, size.layers, size.width, 12 * size.width + 4 * size.mlp)
    towers = sum(
        _of_blocks(images * size.patches, tower.layers - 1, tower.width, 8 * tower.width + 2 * tower.mlp)
        for tower in (size.dino, size.siglip)
        if cell.model.vision == "trained"
    )
    return Activations(ticks, slots, tokens, images, language, towers)


def list_savings(cell: Cell, interface: Interface, checkpointing: bool, ranks: int = 1) -> dict[str, float]:
    """Returns every option that would help, with the share of the activations that it saves; the best first.

    Options that do not apply are left out. Args: as of `estimate_activations`.
    """
    K, budget = cell.truncation, cell.budget
    window = {"budget.window": budget.window // 2}
    if budget.window < 2 * K:  # a block is no longer than its window
        window["truncation"] = budget.window // 2
    options = [{"budget.slots": budget.slots // 2}, window, {"truncation": K // 2}, {"model.precision": "bfloat16"}]
    totals = {
        "--gradient-checkpointing (the same numbers, in more time)": estimate_activations(
            cell, interface, True, ranks
        ).total
    }
    for changes in options:
        with contextlib.suppress(MuvlaError):  # the changed cell would be invalid
            name = ", ".join(f"{field}={value}" for field, value in changes.items())
            totals[name] = estimate_activations(replace(cell, changes), interface, checkpointing, ranks).total
    single = dataclasses.replace(interface, cameras=1 + interface.first_image)
    totals[f"data.cameras=1, of {interface.cameras - interface.first_image}"] = estimate_activations(
        cell, single, checkpointing, ranks
    ).total
    now = estimate_activations(cell, interface, checkpointing, ranks).total
    saved = {name: 1 - then / now for name, then in totals.items() if then < 0.99 * now}
    return dict(sorted(saved.items(), key=lambda item: -item[1]))


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True for the errors by which torch reports too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in OOM_MESSAGES)


@contextlib.contextmanager
def memory_explained(cell: Cell, interface: Interface, checkpointing: bool, ranks: int = 1) -> Iterator[None]:
    """Converts an out-of-memory error in its block to a MuvlaError that estimates what each option would save.

    Args: as of `estimate_activations`.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        used = estimate_activations(cell, interface, checkpointing, ranks)
        language, towers = (f"{part / 2**30:.2g} GB" for part in (used.language, used.towers))
        saved = "; ".join(
            f"{name}: {share:.0%}" for name, share in list_savings(cell, interface, checkpointing, ranks).items()
        )
        raise MuvlaError(
            "memory",
            got=f"too little memory ({' '.join(str(error).split())[:160]})",
            expected=f"about {language} for activations of the language model (K = {used.ticks} ticks of "
            f"{used.slots} slots of {used.tokens} tokens), {towers} for activations of the towers ({used.images} "
            "images in a window), and weights, gradients and moments on top",
            remedy=f"save activations, by about {saved}. A changed field makes another cell. The last checkpoint "
            "stays: `--retry-failed` continues from there",
        ) from error
