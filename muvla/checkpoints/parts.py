"""Which files a released directory consists of, and whether they belong together (spec 2.7)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from muvla.checkpoints.metadata import CONFIG, MEMORY_META, PROPRIO_KEY
from muvla.checkpoints.names import HEADS
from muvla.errors import MuvlaError

STATISTICS = "dataset_statistics.json"
TOKENIZER = "tokenizer.json"
PARTS = {  # beside the weights: part → what its file's name begins with
    "vision": "vision_backbone",
    "head": "action_head",
    "noisy": "noisy_action_projector",
    "proprio": "proprio_projector",
    "memory": "memory_module",
}
PREFIXES = {"head": "module.", "noisy": "module.", "proprio": "module."}  # DDP's, as the release writes them
IGNORED = ("optimizer", "scheduler")  # of a training that could be continued upstream
Head = Literal["l1", "diffusion"]


def file_name(part: str, step: str) -> str:
    return f"{PARTS[part]}--{step}_checkpoint.pt"


def step_of(file: Path) -> str:
    """Of the training, as a file name tells it: a number, or "latest"."""
    return file.name.split("--")[1].removesuffix("_checkpoint.pt")


def part_files(path: Path) -> dict[str, Path]:
    """Part → file, of those there are. Raises MuvlaError for two of one part."""
    files = {}
    for part in PARTS:
        found = sorted(path.glob(file_name(part, "*")))
        if len(found) > 1:
            raise MuvlaError(
                str(path),
                got=", ".join(f.name for f in found),
                expected=f"one {file_name(part, '…')}",
                remedy="keep the step that you mean in this folder, and move the others",
            )
        files |= {part: found[0]} if found else {}
    return files


def head_of(file: Path, names: Iterable[str]) -> Head:
    """By the names of its tensors. Raises MuvlaError for another head."""
    names = list(names)
    kinds = [kind for kind, prefix in HEADS.items() if any(name.startswith(prefix) for name in names)]
    if len(kinds) != 1:
        raise MuvlaError(
            str(file),
            got=f"an unknown head, with {', '.join(names[:3])}",
            expected=f"tensors named {' or '.join(f'{p}…' for p in HEADS.values())}",
            remedy="only OpenVLA-OFT's L1 and diffusion heads can be read",
        )
    return kinds[0]


def require_one_checkpoint(path: Path, config: dict[str, Any], files: dict[str, Path], head: Head) -> None:
    """Every part, of one step, and none that this policy has no place for; or no part at all, which is OpenVLA itself.
    Raises MuvlaError."""
    has_memory = (path / MEMORY_META).exists() or "memory" in files
    places = ["head"] + ["noisy"] * (head == "diffusion") + ["proprio"] * config.get(PROPRIO_KEY, True)
    needed = places + ["memory"] * has_memory if files or has_memory else []
    missing = [file_name(part, "…") for part in needed if part not in files]
    missing += [STATISTICS] * bool(needed and not (path / STATISTICS).exists())
    known = (*(PARTS[part] for part in [*places, "vision", "memory"]), *IGNORED)
    foreign = [f.name for f in sorted(path.glob("*--*_checkpoint.pt")) if f.name.split("--")[0] not in known]
    steps = sorted({step_of(file) for file in files.values()})
    for got, expected, remedy in (
        (
            f"no {' and no '.join(missing)}" * bool(missing),
            "every part of one checkpoint",
            f"download it too; of a release without proprio, write {PROPRIO_KEY}: false into {CONFIG}",
        ),
        (", ".join(foreign), f"the parts of a policy with the head {head!r}", "this policy has no place for it"),
        (f"steps {', '.join(steps)}" * (len(steps) > 1), "one step", "download the parts of one checkpoint"),
    ):
        if got:
            raise MuvlaError(str(path), got=got, expected=expected, remedy=remedy)
