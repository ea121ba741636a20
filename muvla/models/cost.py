"""The cost of a tick: the memory mechanism of a cell, and the language model with its MEMORY tokens.

Legend: S sequence, D width, m MEMORY tokens.
"""

from __future__ import annotations

import torch

from muvla.config import Cell, SizeConfig
from muvla.memory.registry import build_memory
from muvla.models.policy import Interface, dimensions_of, layout_of


def memory_cost(cell: Cell, interface: Interface) -> dict[str, int]:
    """Cost of the cell's memory, see `Memory.cost`, and `model_flops` per slot and tick of the language model.

    Nothing is allocated: the mechanism is built without values.
    """
    with torch.device("meta"):
        memory = build_memory(cell.memory, dimensions_of(cell.model, interface))
        cost = memory.cost()
    length = layout_of(cell.model, interface, memory.tokens).length
    return cost | {"model_flops": language_flops(cell.model.size, length)}


def language_flops(size: SizeConfig, length: int) -> int:
    """Floating-point operations of one pass of the language model over S = `length` tokens.

    Counted are the matrix products: four of width D², three of the MLP, and the two of attention.
    """
    per_token = 8 * size.width**2 + 6 * size.width * size.mlp
    return size.layers * (length * per_token + 4 * length**2 * size.width)
