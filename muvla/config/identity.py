"""Identity of a cell: the hash of its canonical form, with the hash of its data, is its train id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from muvla.config.cell import Cell
from muvla.config.model import LoraConfig
from muvla.config.serialization import content_hash, identity, replace


def canonical(cell: Cell) -> Cell:
    """The cell with every field that its computation does not use set to one value.

    Without recurrence, K and α change nothing; without MEMORY tokens, neither m, their scale, the guard's memory rows
    nor an intervention does. A budget regime is written as the B, W and U that it comes to. So equal computations share
    one identity, and are trained once.
    """
    changes: dict[str, Any] = {"budget": cell.effective_budget}
    without_tokens = cell.memory.kind == "none" or cell.memory.m == 0
    if not cell.recurs:
        changes |= {"memory.alpha": 1.0, "truncation": cell.budget.window}
    if not cell.recurs or cell.truncation in (
        1,
        cell.effective_budget.window,
    ):  # cut at every tick, or at windows alone
        changes["truncation_from"] = "window"
    if without_tokens:
        changes |= {"memory.kind": "none", "memory.m": 0, "memory.init_std": 0.0, "intervention": None}
        if cell.model.guard == "memory_only":
            changes["model.guard"] = "full"
    if cell.model.memory_positions == "shift":  # the positions of a reserve of exactly m
        changes |= {"model.memory_positions": "reserved", "model.reserve": 0 if without_tokens else cell.memory.m}
    if cell.start.checkpoint is None:
        changes["start.parts"] = "all"
    if cell.lora.rank == 0:
        changes["lora.alpha"] = LoraConfig().alpha
    if cell.data.order != "grouped":
        changes["data.group"] = 16
    if cell.effective_budget.updates == 1:  # no other checkpoint than the last
        changes["selection"] = "final"
    if cell.model.chunk == 1:  # no chunk entry lies past an episode's end
        changes["data.tail"] = "mask"
    if not cell.data.mixture:
        changes["data.balance"] = "episode"
    return replace(cell, changes)


def started_at(cell: Cell, place: str | None) -> Cell:
    """The cell with what it starts from at another place: a path means nothing on another machine, its content does."""
    return replace(cell, {"start.checkpoint": place})


def of_sources(cell: Cell, names: Iterable[str | None]) -> Cell:
    """The cell with its imported datasets under other names, which are no content either; collected ones have none."""
    first, *others = [
        one if one.source is None or name is None else replace(one, {"source": name})
        for one, name in zip(cell.data.datasets, names, strict=True)
    ]
    return replace(cell, {"data.dataset": first, "data.mixture": others})


def train_id(cell: Cell, data: str, start: str | None) -> str:
    """Hash of the canonical training configuration, of the data's content and of that of what the cell starts from."""
    names = [f"import-{i}" if i else "import" for i in range(len(cell.data.datasets))]
    placeless = of_sources(started_at(canonical(cell), start), names)
    return content_hash({"cell": identity(placeless), "data": data})
