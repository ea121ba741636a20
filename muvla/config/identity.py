"""Identity of a cell: the hash of its canonical form, with the hash of its data, is its train id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from muvla.config.cell import Cell
from muvla.config.expert import ExpertConfig
from muvla.config.model import LoraConfig
from muvla.config.serialization import content_hash, identity, replace

_CANONICAL = "_canonical"  # attribute of a cell


def canonical(cell: Cell) -> Cell:
    """The cell with every field that its computation does not use set to one value.

    Equal computations then share one identity, and are trained once. K is unused where no gradient crosses ticks; the
    mechanism names the unused fields of its configuration. A budget regime becomes the B, W and U that it amounts to.
    The result is kept with the cell, because a plan asks for it at many places.
    """
    if _CANONICAL not in vars(cell):
        result = _canonical(cell)
        vars(cell)[_CANONICAL] = vars(result)[_CANONICAL] = result
    return vars(cell)[_CANONICAL]


def _canonical(cell: Cell) -> Cell:
    memory, budget = cell.memory.canonical(), cell.effective_budget
    changes: dict[str, Any] = {"budget": budget, "memory": memory}
    if not memory.gradient_crosses:
        changes["truncation"] = cell.budget.window
    # Blocks of one tick, or of a whole window, are the same from wherever they are counted.
    if not memory.gradient_crosses or cell.truncation in (1, budget.window):
        changes["truncation_from"] = "window"
    if not memory.has_state:
        changes["intervention"] = None
    if memory.tokens == 0 and cell.model.guard == "memory_only":  # it bars no row
        changes["model.guard"] = "full"
    if cell.model.memory_positions == "shift":  # the positions of a reserve of exactly m
        changes |= {"model.memory_positions": "reserved", "model.reserve": memory.tokens}
    if cell.start.checkpoint is None:
        changes["start.parts"] = "all"
    if cell.lora.rank == 0:
        changes |= {"lora.alpha": LoraConfig().alpha, "lora.patches": LoraConfig().patches}
    if cell.model.vision == "frozen":  # no adapter and no gradient in the towers
        changes |= {"lora.patches": LoraConfig().patches, "model.class_token": "two"}
    if cell.lora.rank:  # the towers' own parameters are frozen
        changes["model.class_token"] = "two"
    if cell.data.augmentation == "none":
        changes["data.crop"] = "free"
    if cell.optimizer.warmup == 0:
        changes["optimizer.warmup_from"] = "zero"
    if cell.data.order != "grouped":
        changes |= {"data.group": 16, "data.group_padding": "none"}
    if cell.effective_budget.updates == 1:  # no other checkpoint than the last
        changes["selection"] = "final"
    changes |= _unused_of_expert(cell)
    if cell.model.chunk == 1:  # no chunk entry lies past an episode's end
        changes["data.tail"] = "mask"
    if cell.data.held_out is not None:  # measured, not trained on
        changes["data.held_out"] = None
    if not cell.data.mixture:
        changes["data.balance"] = "episode"
    return replace(cell, changes)


def _unused_of_expert(cell: Cell) -> dict[str, Any]:
    """Fields that belong to another head, to another sampler, or to attention that is not causal."""
    model, expert, unused = cell.model, cell.model.expert, ExpertConfig()
    if model.head != "expert":
        return {"model.expert": unused}
    changes: dict[str, Any] = {}
    if model.causal:  # the guarded tokens stand last, where no other row sees them
        changes["model.guard"] = "context"
    if expert.sampler == "ddpm":
        changes["model.expert.sampled_steps"] = unused.sampled_steps
    if expert.guidance == 1:
        changes["model.expert.guided_axis"] = unused.guided_axis
    if not cell.memory.perceives:
        changes["model.expert.per_attn_init"] = unused.per_attn_init
    return changes


def started_at(cell: Cell, place: str | None) -> Cell:
    """The cell with its start checkpoint at another place: a path means nothing on another machine, content does."""
    return cell if cell.start.checkpoint == place else replace(cell, {"start.checkpoint": place})


def of_sources(cell: Cell, names: Iterable[str | None]) -> Cell:
    """The cell with its imported datasets under other names, which are no content. Collected datasets have no name."""
    if all(dataset.source is None for dataset in cell.data.datasets):
        return cell
    first, *others = [
        dataset if dataset.source is None or name is None else replace(dataset, {"source": name})
        for dataset, name in zip(cell.data.datasets, names, strict=True)
    ]
    return replace(cell, {"data.dataset": first, "data.mixture": others})


def train_id(cell: Cell, data: str, start: str | None) -> str:
    """Hash of the canonical training configuration, of the data's content and of the start checkpoint's content."""
    names = [f"import-{i}" if i else "import" for i in range(len(cell.data.datasets))]
    placeless = of_sources(started_at(canonical(cell), start), names)
    return content_hash({"cell": identity(placeless), "data": data})
