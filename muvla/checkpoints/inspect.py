"""The content of a checkpoint folder in a few lines: `muvla inspect`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from muvla.checkpoints import native
from muvla.checkpoints.comparison import get_shapes
from muvla.checkpoints.fields import FieldStatus
from muvla.checkpoints.native_policy import load_policy
from muvla.checkpoints.opening import AnyCheckpoint, open_checkpoint
from muvla.checkpoints.parts import PARTS
from muvla.checkpoints.prismatic import PrismaticCheckpoint
from muvla.checkpoints.recognition import recognise
from muvla.checkpoints.released import CONFIG, ReleasedCheckpoint
from muvla.checkpoints.tensors import sha256
from muvla.checkpoints.training_file import find_run_folder
from muvla.config.model import SizeConfig
from muvla.config.serialization import flatten
from muvla.errors import MuvlaError, located

FAMILIES = {
    "openvla": "OpenVLA, without action head: a base to fine-tune",
    "oft": "OpenVLA-OFT",
    "muvla": "μVLA: OpenVLA-OFT with MEMORY tokens",
    "prismatic": "Prismatic, without action expert: a base to fine-tune",
    "cogact": "CogACT: an action expert without memory",
    "memoryvla": "MemoryVLA: an action expert with a retrieval bank",
    "cronusvla": "CronusVLA: an action expert with a window of features",
}


def inspect(path: Path, size: SizeConfig | None = None) -> Iterator[str]:
    """Yields lines about a released directory, a training checkpoint or a run folder.

    A released directory's values are read only for their hashes.

    Raises:
        MuvlaError: the folder is no checkpoint; or, after the last line, the checkpoint would not load.
    """
    if find_run_folder(path) is not None:
        yield from _prismatic(PrismaticCheckpoint(path, size))
        return
    if (path / CONFIG).exists():
        yield from _released(ReleasedCheckpoint(path, size))
        return
    folder = native.selected(path / "checkpoints") or path
    if (folder / native.META).exists():
        yield from _native(folder)
        return
    recognised = recognise(path)
    raise MuvlaError(
        "CHECKPOINT",
        got=f"{path}: {recognised.got}" if recognised else str(path),
        expected=f"a folder with {CONFIG} (a release) or {native.META} (a run)",
        remedy=recognised.remedy
        if recognised
        else "list the runs with `muvla status`, or name a folder of the two kinds",
    )


def list_fields(path: Path, size: SizeConfig | None = None) -> list[dict[str, str]]:
    """Returns file, field, status and reason of everything in a released directory; nothing for a run."""
    if not (path / CONFIG).exists() and find_run_folder(path) is None:
        return []
    return [asdict(status) for status in open_checkpoint(path, size).fields]


def _released(directory: ReleasedCheckpoint) -> Iterator[str]:
    yield f"{directory.path}: {FAMILIES[directory.family]}, step {directory.step}"
    yield f"size: {directory.size.name}, {directory.size.image_size} px, {directory.size.patches} tokens per camera"
    for part, tensors in directory.parts.items():
        shapes = get_shapes(tensors)
        name = PARTS.get(part, part)
        yield f"{name}: {len(shapes)} tensors, {sum(math.prod(s) for s in shapes.values()):,} parameters"
    if directory.film:
        yield f"FiLM: {PARTS['vision']} holds the trained towers; the weights hold the towers from before the training"
    if directory.memory:
        meta = directory.memory
        tokens = meta.mechanism
        rule = f"tbptt, K = {meta.truncation}" if tokens.alpha == 1 else f"ema, α = {tokens.alpha:g}"
        yield f"memory: m = {tokens.m}, update {rule}, guard {meta.guard}"
    yield from _statistics_lines(directory)
    for file in sorted(p for p in directory.path.iterdir() if p.suffix in (".safetensors", ".pt")):
        yield f"sha256 {sha256(file)}  {file.name}"
    yield from _field_lines(directory.fields)
    yield from _differences(directory)


def _prismatic(directory: PrismaticCheckpoint) -> Iterator[str]:
    yield f"{directory.path}: {FAMILIES[directory.family]}, {directory.step}"
    yield f"size: {directory.size.name}, {directory.size.image_size} px, {directory.size.patches} tokens per camera"
    for module, entries in groupby(directory.shapes.items(), key=lambda entry: entry[0].split(".", 1)[0]):
        shapes = dict(entries)
        yield f"{module}: {len(shapes)} tensors, {sum(math.prod(s) for s in shapes.values()):,} parameters"
    if directory.family != "prismatic":
        model = directory.skeleton().config
        expert = model.expert
        yield f"expert: {expert.layers} layers of width {expert.width}, {expert.heads} heads; chunk H = {model.chunk}"
        fields = flatten(directory.memory).items() if directory.memory.has_state else ()
        words = [f"memory: {directory.memory.kind}", *(f"{name} = {value}" for name, value in fields if name != "kind")]
        yield ", ".join(words)
    yield from _statistics_lines(directory)
    for name, digest in directory.hashes().items():
        yield f"sha256 {digest}  {name}"
    yield from _field_lines(directory.fields)
    if directory.family != "prismatic":
        yield from _differences(directory)


def _statistics_lines(directory: AnyCheckpoint) -> Iterator[str]:
    for key, bounds in directory.statistics.items():
        action = (bounds.get("action") if isinstance(bounds, dict) else None) or {}
        mask = action.get("mask")
        if mask is None:
            mask = [True] * len(action.get("q01") or [])
        yield f"statistics: {key}, {sum(mask)} of {len(mask)} action dimensions are normalised"


def _differences(directory: AnyCheckpoint) -> Iterator[str]:
    differences = directory.differences() + directory.value_differences()
    yield "would not load:" if differences else "would not load: nothing"
    yield from (f"  {line}" for line in differences)
    if differences:
        raise MuvlaError(
            str(directory.path),
            got=f"{len(differences)} differences",
            expected=f"the tensors and fields of size {directory.size.name!r}",
            remedy="take each listed file from one checkpoint; --size names another architecture",
        )


def _field_lines(fields: list[FieldStatus]) -> Iterator[str]:
    """Yields a line per file and status; each refused field has a line with its value."""
    for (file, status), group in groupby(sorted(fields, key=_by_file), key=lambda f: (f.file, f.status)):
        members = list(group)
        if status == "refused":
            yield from (f"refused: {member.line()}" for member in members)
            continue
        names = ", ".join(member.field for member in members if member.field)
        yield f"{status}: {file}" + (f": {names}" if names else f" ({members[0].note})" if members[0].note else "")


def _by_file(status: FieldStatus) -> tuple[str, str]:
    return status.file, status.status


def _native(folder: Path) -> Iterator[str]:
    checkpoint = native.load(folder)  # verifies the recorded hashes
    cell, tensors = checkpoint.cell, checkpoint.tensors["model"]
    model, size, interface = cell.model, cell.model.size, checkpoint.interface
    yield f"{folder}: a muvla training, update {checkpoint.update} of {cell.budget.updates}, training seed {cell.seed}"
    yield f"size: {size.name}, {size.image_size} px, {size.patches} tokens per camera"
    stored = "trained" if cell.start.checkpoint else "model"
    yield f"{stored}: {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} parameters"
    if cell.start.checkpoint:
        yield f"started from: {cell.start.checkpoint} ({cell.start.parts}), content {checkpoint.start}"
        yield f"adapters: rank {cell.lora.rank}, alpha {cell.lora.alpha:g}" if cell.lora.rank else "adapters: none"
    words = [f"memory: {cell.memory.kind}"]
    if cell.memory.has_state:
        words += [f"{name} = {value}" for name, value in flatten(cell.memory).items() if name != "kind"]
        words.append(f"K = {cell.truncation}")
    yield ", ".join(words)
    options = [f"guard: {model.guard}", f"chunk H = {model.chunk}", f"head {model.head}"]
    if model.film:
        options.append("FiLM")
    if not model.proprio:
        options.append("no proprio")
    yield "; ".join(options)
    last = ", the last is the episode's first" if interface.first_image else ""
    yield f"images: {interface.cameras}{last}, {model.images}; precision {model.precision}"
    mask, tasks = checkpoint.statistics.action_mask, ", ".join(dataset.task.name for dataset in cell.data.datasets)
    scaled = "all" if all(mask) else f"{sum(mask)} of {len(mask)}"
    yield f"statistics: data {checkpoint.statistics.data[:12]} ({tasks}), {scaled} action dimensions are normalised"
    for file in sorted(folder.glob("*.safetensors")):
        yield f"sha256 {sha256(file)}  {file.name}"
    with located(folder / native.META):
        load_policy(checkpoint)
    yield "would not load: nothing"
