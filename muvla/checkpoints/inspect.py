"""What a checkpoint folder holds, in a few lines: `muvla inspect`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from muvla.checkpoints import native as native
from muvla.checkpoints.comparison import shapes_of
from muvla.checkpoints.parts import PARTS
from muvla.checkpoints.released import CONFIG, ReleasedCheckpoint
from muvla.checkpoints.tensors import sha256
from muvla.config.model import SizeConfig
from muvla.errors import MuvlaError

KINDS = {
    "openvla": "OpenVLA, without action head: a base to fine-tune",
    "oft": "OpenVLA-OFT",
    "muvla": "μVLA: OpenVLA-OFT with MEMORY tokens",
}


def inspect(path: Path, size: SizeConfig | None = None) -> Iterator[str]:
    """Lines about a released directory, one of ours or a run folder; headers are read, values only for their hashes.

    Raises MuvlaError for a folder that is none of these, and at the end if it would not load.
    """
    if (path / CONFIG).exists():
        yield from _released(ReleasedCheckpoint(path, size))
        return
    folder = native.selected(path / "checkpoints") or path
    if not (folder / native.META).exists():
        raise MuvlaError(
            "CHECKPOINT",
            got=str(path),
            expected=f"a folder with {CONFIG} (a release) or {native.META} (a run)",
            remedy="check the path",
        )
    yield from _native(folder)


def _released(directory: ReleasedCheckpoint) -> Iterator[str]:
    yield f"{directory.path}: {KINDS[directory.kind]}, step {directory.step}"
    yield f"size: {directory.size.name}, {directory.size.image_size} px, {directory.size.patches} tokens per camera"
    for part, tensors in directory.parts.items():
        shapes = shapes_of(tensors)
        name = PARTS.get(part, part)
        yield f"{name}: {len(shapes)} tensors, {sum(math.prod(s) for s in shapes.values()):,} parameters"
    if directory.film:
        yield f"FiLM: the towers are those of {PARTS['vision']}; the weights hold them as they were before"
    if directory.memory:
        meta = directory.memory
        tokens = meta.mechanism
        rule = f"tbptt, K = {meta.truncation}" if tokens.alpha == 1 else f"ema, α = {tokens.alpha:g}"
        yield f"memory: m = {tokens.m}, update {rule}, guard {meta.guard}"
    for key, bounds in directory.statistics.items():
        action = (bounds.get("action") if isinstance(bounds, dict) else None) or {}
        mask = action.get("mask", [True] * len(action.get("q01", [])))
        yield f"statistics: {key}, {sum(mask)} of {len(mask)} action dimensions are normalised"
    for file in sorted(p for p in directory.path.iterdir() if p.suffix in (".safetensors", ".pt")):
        yield f"sha256 {sha256(file)}  {file.name}"
    wrong = directory.differences()
    yield f"would not load: {'nothing' if not wrong else ''}".rstrip()
    yield from (f"  {line}" for line in wrong)
    if wrong:
        raise MuvlaError(
            str(directory.path),
            got=f"{len(wrong)} things that do not fit",
            expected=f"those of size {directory.size.name!r}",
            remedy="name the size with --size, or download the checkpoint again",
        )


def _native(folder: Path) -> Iterator[str]:
    checkpoint = native.load(folder)  # verifies the recorded hashes
    cell, model = checkpoint.cell, checkpoint.tensors["model"]
    yield f"{folder}: a muvla training, update {checkpoint.update} of {cell.budget.updates}, training seed {cell.seed}"
    size = cell.model.size
    yield f"size: {size.name}, {size.image_size} px, {size.patches} tokens per camera"
    kind = "trained" if cell.start.checkpoint else "model"
    yield f"{kind}: {len(model)} tensors, {sum(t.numel() for t in model.values()):,} parameters"
    if cell.start.checkpoint:
        yield f"started from: {cell.start.checkpoint} ({cell.start.parts}), content {checkpoint.start}"
        yield f"adapters: rank {cell.lora.rank}, alpha {cell.lora.alpha:g}" if cell.lora.rank else "adapters: none"
    widths = f", m = {cell.memory.m}, α = {cell.memory.alpha:g}, K = {cell.truncation}" if cell.memory.m else ""
    yield f"memory: {cell.memory.kind}{widths}"
    options = "; FiLM" * cell.model.film + "; no proprio" * (not cell.model.proprio)
    yield f"guard: {cell.model.guard}; chunk H = {cell.model.chunk}; head {cell.model.head}{options}"
    shown = ", the last the episode's first" * checkpoint.interface.first_image
    yield f"images: {checkpoint.interface.cameras}{shown}, {cell.model.images}; precision {cell.model.precision}"
    mask, tasks = checkpoint.statistics.action_mask, ", ".join(one.task.name for one in cell.data.datasets)
    scaled = "all" if all(mask) else f"{sum(mask)} of {len(mask)}"
    yield f"statistics: data {checkpoint.statistics.data[:12]} ({tasks}), {scaled} action dimensions are normalised"
    for file in sorted(folder.glob("*.safetensors")):
        yield f"sha256 {sha256(file)}  {file.name}"
    native.load_policy(checkpoint)
    yield "would not load: nothing"
