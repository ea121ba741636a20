"""The cost of every variant's memory, for the plan and the report."""

from __future__ import annotations

from muvla.checkpoints.build import get_prompts
from muvla.config import canonical
from muvla.data.store import EpisodeStore
from muvla.models.cost import memory_cost
from muvla.training.interface import get_interface
from sweeps.study import Study

HEADER = [
    "variant",
    "mechanism",
    "parameters",
    "MEMORY tokens",
    "memory FLOPs/tick",
    "model FLOPs/tick",
    "bytes/slot",
]
NOTE = (
    "A memory's FLOPs are those of its search, its write and its place; the model's are those of the language model "
    "with the MEMORY tokens. Bytes are carried from tick to tick"
)


def cost_rows(study: Study, stores: dict[str, EpisodeStore]) -> list[list[str]]:
    """A line of `HEADER` for each variant.

    Args:
        study: the study.
        stores: variant → the data of its cells.
    """
    rows, costs = [], {}
    for variant, cell in {item.variant: canonical(item.cell) for item in study.of_one_seed}.items():
        parts = (cell.memory, cell.model, cell.data, cell.start, id(stores[variant]))
        if parts not in costs:
            costs[parts] = memory_cost(cell, get_interface(stores[variant], get_prompts(cell), cell))
        cost = costs[parts]
        numbers = [cost[name] for name in ("parameters", "tokens", "flops", "model_flops", "bytes")]
        rows.append([variant, cell.memory.update_rule(cell.truncation), *(f"{number:,}" for number in numbers)])
    return rows
