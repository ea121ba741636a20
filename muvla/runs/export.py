"""Write a trained cell in the released layout, for the published code: `muvla export`.

A cell that the published code cannot compute is refused, not approximated. The published code has m memory tokens under
the guards `full` and `context`, or no memory; chunks of 8; and positions that memory shifts by m (spec 1.1, 1.9, 2.7,
3). Its files have no place for cameras, proprio and the image pipeline, which are flags of every run there. The export
writes them into config.json under keys of muvla.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muvla.checkpoints.adapters import make_adapter_files
from muvla.checkpoints.build import open_start, starts_from_training
from muvla.checkpoints.metadata import CAMERAS_KEY, FIRST_IMAGE_KEY, IMAGES_KEY, PROPRIO_KEY, make_config_json
from muvla.checkpoints.preprocessor import PREPROCESSOR, make_preprocessor_config
from muvla.checkpoints.release import Release, require_new, write_release
from muvla.checkpoints.released import CHUNK
from muvla.config import Cell, canonical
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.runs.export_expert import export_expert
from muvla.runs.run import Run


def export(run: Run, path: Path, key: str) -> None:
    """Write the trained cell with merged adapters, and the adapters beside the weights.

    Args:
        run: the run of a trained cell.
        path: a new folder.
        key: name that the dataset's statistics get in the release.

    Raises:
        MuvlaError: the published code cannot run the cell, or the folder holds files.
    """
    require_new(path)
    saved, cell = run.checkpoint(parts=()), canonical(run.cell)
    if cell.model.head == "expert":
        export_expert(run, path, {key: _bounds(saved.statistics)})
        return
    _require_published(cell)
    policy = run.load_policy("cpu")
    if cell.start.checkpoint is None:
        config, carried, vision = make_config_json(cell.model.size), {}, None
        stated = make_preprocessor_config(policy.constants, cell.model.size.image_size)
        upstream = {PREPROCESSOR: json.dumps(stated, indent=2).encode()}
    else:
        start = open_start(cell)
        config, carried, upstream = start.config, start.carried(cell.model.film), start.upstream_files()
        vision = start.parts.get("vision")
    config = config | {
        IMAGES_KEY: cell.model.images,
        PROPRIO_KEY: cell.model.proprio,
        CAMERAS_KEY: saved.interface.cameras,
        FIRST_IMAGE_KEY: saved.interface.first_image,
    }
    upstream |= make_adapter_files(policy, cell.lora, cell.start.checkpoint or "")
    statistics, step = {key: _bounds(saved.statistics)}, str(saved.update)
    write_release(Release(policy, carried, config, statistics, _memory_meta(cell), step, upstream, vision), path)


def _require_published(cell: Cell) -> None:
    model, memory = cell.model, cell.memory
    guards = ("full",) if memory.kind == "none" else ("full", "context")
    gate = getattr(memory, "gate", "none")  # of the mechanisms that were published
    for name, got, fits, expected in (
        ("data.instruction", cell.data.instruction, cell.data.instruction == "task", "task"),
        ("data.cameras", cell.data.cameras, not isinstance(cell.data.cameras, tuple), "a number of cameras, or null"),
        ("start.checkpoint", cell.start.checkpoint, not starts_from_training(cell), "null, or a released checkpoint"),
        ("memory.kind", memory.kind, memory.kind in ("tokens", "none"), "tokens or none"),
        ("memory.gate", gate, gate == "none", "none"),
        ("model.guard", model.guard, model.guard in guards, " or ".join(guards)),
        ("model.chunk", model.chunk, model.chunk == CHUNK, str(CHUNK)),
        (
            "model.reserve",
            model.reserve,
            model.reserve == memory.tokens,
            f"m = {memory.tokens}, or memory_positions = shift",
        ),
    ):
        if not fits:
            raise MuvlaError(
                name,
                got=got,
                expected=f"{expected}: the published code has nothing else",
                remedy="train a cell with this value, or evaluate the cell from its run folder",
            )


def _bounds(statistics: Statistics) -> dict[str, Any]:
    """The statistics in the released form. A checkpoint of an older version has no mean and no standard deviation."""
    s = statistics
    action = {"q01": s.action_low, "q99": s.action_high, "mean": s.action_mean, "std": s.action_std}
    proprio = {"q01": s.proprio_low, "q99": s.proprio_high, "mean": s.proprio_mean, "std": s.proprio_std}
    bounds = {
        part: {name: list(value) for name, value in values.items() if value is not None}
        for part, values in (("action", action), ("proprio", proprio))
    }
    bounds["action"]["mask"] = list(s.action_mask)
    return bounds


def _memory_meta(cell: Cell) -> dict[str, Any] | None:
    memory = cell.memory
    if memory.kind == "none":
        return None
    return {
        "num_mem_tokens": memory.m,
        "memory_update": "tbptt" if memory.alpha == 1 else "ema",
        "ema_alpha": memory.alpha,
        "tbptt_length": cell.truncation,
        "attention_mask_mode": "full" if cell.model.guard == "full" else "custom",
    }
