"""A trained cell with an action expert, written as the trainings of CogACT, MemoryVLA and CronusVLA save it."""

from __future__ import annotations

from pathlib import Path

from muvla.checkpoints.build import open_start, starts_from_training
from muvla.checkpoints.parts import TOKENIZER
from muvla.checkpoints.prismatic_config import CONSOLIDATION
from muvla.checkpoints.prismatic_export import TrainingRun, make_training_config, write_training_run
from muvla.config import Cell, canonical
from muvla.errors import MuvlaError
from muvla.runs.run import Run


def export_expert(run: Run, path: Path, statistics: dict) -> None:
    """Write the trained cell as a run folder.

    Args:
        run: the run of a trained cell.
        path: a new folder.
        statistics: quantiles by dataset key.

    Raises:
        MuvlaError: the published code cannot run the cell, or the folder holds files.
    """
    cell = canonical(run.cell)
    require_published_expert(cell)
    policy, tokenizer, carried = run.load_policy("cpu"), None, {}
    if cell.start.checkpoint is not None:
        start = open_start(cell)
        tokenizer = (start.path / TOKENIZER).read_bytes()
        carried = start.carried() if hasattr(start, "tensors") else {}
    config = make_training_config(policy, cell.model.images, tokenizer is None)
    step = f"step-{run.checkpoint(parts=()).update:06d}-epoch-00-loss=inf"
    write_training_run(TrainingRun(policy, config, statistics, step, carried, tokenizer), path)


def require_published_expert(cell: Cell) -> None:
    """Raises MuvlaError for a cell that the published code cannot compute."""
    model, memory = cell.model, cell.memory
    demands = [
        ("model.causal", model.causal, model.causal, "true"),
        ("start.checkpoint", cell.start.checkpoint, not starts_from_training(cell), "null, or a released checkpoint"),
        ("model.proprio", model.proprio, not model.proprio, "false"),
        ("data.instruction", cell.data.instruction, cell.data.instruction == "task", "task"),
        ("memory.kind", memory.kind, memory.kind in ("none", "bank", "feature_fifo"), "none, bank or feature_fifo"),
    ]
    if memory.kind in ("bank", "feature_fifo"):
        demands.append(("memory.place", memory.place, memory.place == "condition", "condition"))
        demands.append(("memory.emptied", memory.emptied, not memory.emptied, "false"))
    if memory.kind == "bank":
        rule, details = memory.consolidation, memory.details
        demands.append(("memory.details", details, details == "memoryvla", "memoryvla"))
        demands.append(("memory.heads", memory.heads, memory.heads == 1, "1"))
        demands.append(("memory.consolidation", rule, rule in CONSOLIDATION.values(), "merge or fifo"))
    for name, got, fits, expected in demands:
        if not fits:
            raise MuvlaError(
                name,
                got=got,
                expected=f"{expected}: the published code has nothing else",
                remedy="train a cell with this value, or evaluate the cell from its run folder",
            )
