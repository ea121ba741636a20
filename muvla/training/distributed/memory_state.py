"""The carried memory in a checkpoint: exports of all slots, and the part of one rank.

The tensors are those of `Recurrence.export`: their first dimension is the slot. Histories are an exception: their names
hold the slot.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def join_slots(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Joins the exports of consecutive parts of the slots into one export of all slots."""
    collected: dict[str, list[Tensor]] = {}
    first = 0
    for part in parts:
        for name, tensor in part.items():
            collected.setdefault(_shift_slot(name, first), []).append(tensor)
        first += len(part["writes"])
    return {
        name: tensors[0] if name.startswith("history/") else torch.cat(tensors) for name, tensors in collected.items()
    }


def select_slots(exported: dict[str, Tensor], slots: range) -> dict[str, Tensor]:
    """Returns the export of these slots alone; the inverse of `join_slots`."""
    kept = {}
    for name, tensor in exported.items():
        if not name.startswith("history/"):
            kept[name] = tensor[slots.start : slots.stop]
        elif int(name.split("/")[1]) in slots:
            kept[_shift_slot(name, -slots.start)] = tensor
    return kept


def _shift_slot(name: str, by: int) -> str:
    """Returns the name of a history's tensor with its slot number shifted; other names as they are."""
    if not name.startswith("history/"):
        return name
    history, slot, rest = name.split("/", 2)
    return f"{history}/{int(slot) + by}/{rest}"
