"""The files that a released directory consists of, and whether they belong together (spec 2.7)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from muvla.checkpoints.metadata import CONFIG, MEMORY_META, PROPRIO_KEY
from muvla.checkpoints.names import HEADS
from muvla.errors import MuvlaError

STATISTICS = "dataset_statistics.json"
TOKENIZER = "tokenizer.json"
PartName = Literal["weights", "vision", "head", "noisy", "proprio", "memory"]
PARTS: dict[PartName, str] = {  # every part but the weights, with the start of its file's name
    "vision": "vision_backbone",
    "head": "action_head",
    "noisy": "noisy_action_projector",
    "proprio": "proprio_projector",
    "memory": "memory_module",
}
PREFIXES = {"head": "module.", "noisy": "module.", "proprio": "module."}  # DDP's prefix, as the release writes it
IGNORED = ("optimizer", "scheduler")  # files for continuing a training upstream
Head = Literal["l1", "diffusion"]


def file_name(part: PartName, step: str) -> str:
    return f"{PARTS[part]}--{step}_checkpoint.pt"


def get_step(file: Path) -> str:
    """Returns the training step in a file name: a number, or "latest"."""
    return file.name.split("--")[1].removesuffix("_checkpoint.pt")


def find_parts(path: Path) -> dict[PartName, Path]:
    """Returns the file of every part that the directory holds. Raises MuvlaError for two files of one part."""
    files: dict[PartName, Path] = {}
    for part in PARTS:
        matches = sorted(path.glob(file_name(part, "*")))
        if len(matches) > 1:
            raise MuvlaError(
                str(path),
                got=", ".join(f.name for f in matches),
                expected=f"a single {file_name(part, '…')}",
                remedy="keep the files of a single step in this folder, and move the others",
            )
        if matches:
            files[part] = matches[0]
    return files


def get_head(file: Path, names: Iterable[str]) -> Head:
    """Returns the form of the action head by its tensors' names. Raises MuvlaError for an unknown form."""
    names = list(names)
    heads = [head for head, prefix in HEADS.items() if any(name.startswith(prefix) for name in names)]
    if len(heads) != 1:
        raise MuvlaError(
            str(file),
            got=f"a head with tensors {', '.join(names[:3])}",
            expected=f"tensors named {' or '.join(f'{p}…' for p in HEADS.values())}",
            remedy="choose a checkpoint with OpenVLA-OFT's L1 or diffusion head; other heads cannot be read",
        )
    return heads[0]


def require_one_checkpoint(path: Path, config: dict[str, Any], files: dict[PartName, Path], head: Head) -> None:
    """Requires every part of one step and no unknown part; OpenVLA has no part beside the weights.

    Args:
        path: the directory.
        config: its config.json.
        files: file of each part.
        head: form of the action head.

    Raises:
        MuvlaError: a part is missing or unknown, or the parts come from several steps.
    """
    required: list[PartName] = ["head"]
    if head == "diffusion":
        required.append("noisy")
    if config.get(PROPRIO_KEY, True):
        required.append("proprio")
    allowed = {*required, "vision", "memory"}
    has_memory = (path / MEMORY_META).exists() or "memory" in files
    if has_memory:
        required.append("memory")
    if not (files or has_memory):
        required = []
    missing = [file_name(part, "…") for part in required if part not in files]
    if required and not (path / STATISTICS).exists():
        missing.append(STATISTICS)
    if missing:
        raise MuvlaError(
            str(path),
            got=f"no {' and no '.join(missing)}",
            expected="every part of one checkpoint",
            remedy=f"download the files; for a release without proprio, write {PROPRIO_KEY}: false into {CONFIG}",
        )
    recognised = {*(PARTS[part] for part in allowed), *IGNORED}
    foreign = [f.name for f in sorted(path.glob("*--*_checkpoint.pt")) if f.name.split("--")[0] not in recognised]
    if foreign:
        raise MuvlaError(
            str(path),
            got=", ".join(foreign),
            expected=f"the parts of a policy with the head {head!r}",
            remedy="move the file out of this folder; this policy cannot use it",
        )
    steps = sorted({get_step(file) for file in files.values()})
    if len(steps) > 1:
        raise MuvlaError(
            str(path),
            got=f"steps {', '.join(steps)}",
            expected="parts of a single step",
            remedy="download the parts of one checkpoint",
        )
