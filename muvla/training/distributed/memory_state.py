"""What a checkpoint holds of the carried memory, of all slots, and a rank's part of it.

The tensors are those of `Recurrence.export`: the first dimension is the slot, but for histories, whose names tell it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Exports of neighbouring parts of the slots as one export of all of them."""
    whole: dict[str, list[Tensor]] = {}
    first = 0
    for part in parts:
        for name, tensor in part.items():
            whole.setdefault(_of_slot(name, first), []).append(tensor)
        first += len(part["writes"])
    return {name: tensors[0] if name.startswith("history/") else torch.cat(tensors) for name, tensors in whole.items()}


def part_of(exported: dict[str, Tensor], slots: range) -> dict[str, Tensor]:
    """An export of all slots as one of these alone; the way back from `joined`."""
    kept = {}
    for name, tensor in exported.items():
        if not name.startswith("history/"):
            kept[name] = tensor[slots.start : slots.stop]
        elif int(name.split("/")[1]) in slots:
            kept[_of_slot(name, -slots.start)] = tensor
    return kept


def _of_slot(name: str, by: int) -> str:
    """The name of a history's tensor, its slot counted on."""
    if not name.startswith("history/"):
        return name
    history, slot, rest = name.split("/", 2)
    return f"{history}/{int(slot) + by}/{rest}"
