"""Checkpoints: whole or absent, verified after writing, exact enough to continue bit for bit.

A checkpoint is a folder `update-000500` with safetensors and JSON; it is written under a temporary name and renamed,
and the file `latest` names the newest one. Nothing here is pickled. All randomness is keyed, so no generator state is
saved.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from muvla.checkpoints.build import build_policy, start_content, stored_parameters
from muvla.config import Cell
from muvla.config.serialization import from_dict, to_dict
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.models.policy import Interface, Policy
from muvla.utils.io import disk_errors, read_json, write_atomically, write_json

TensorFile = dict[str, Tensor]
FILES = ("model", "optimizer", "memory")
META = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training run is, at one update."""

    update: int
    cell: Cell  # canonical
    start: str | None  # hash of the checkpoint that training started from
    interface: Interface
    statistics: Statistics
    cursor: dict[str, Any]  # of the slot stream
    tensors: dict[str, TensorFile]  # model, optimizer, memory
    selection: dict[str, Any] | None = None  # state of `muvla.training.selection`; None: the last checkpoint counts


def save(folder: Path, checkpoint: Checkpoint, keep: int = 1) -> Path:
    """Writes `folder/update-…`, verifies it, points `latest` at it and removes all but the newest `keep` and the one
    that is selected."""
    name = name_of(checkpoint.update)
    temporary, final = folder / f".{name}.tmp", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(folder):
        temporary.mkdir(parents=True)
        hashes = {}
        for part, tensors in checkpoint.tensors.items():
            # Not by safetensors' own writer: it turns a full disk into an error of its own kind.
            content = serialise({k: v.detach().contiguous().cpu().clone() for k, v in tensors.items()})
            write_atomically(temporary / f"{part}.safetensors", content)
            hashes[part] = hashlib.sha256(content).hexdigest()
        meta = {
            "update": checkpoint.update,
            "cell": to_dict(checkpoint.cell),
            "start": checkpoint.start,
            "interface": asdict(checkpoint.interface),
            "statistics": asdict(checkpoint.statistics),
            "cursor": checkpoint.cursor,
            "sha256": hashes,
            "selection": checkpoint.selection,
        }
        write_json(temporary / META, meta)
        _verify(temporary, hashes)
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
        write_atomically(folder / "latest", name.encode())
    best = (checkpoint.selection or {}).get("best")
    for old in sorted(folder.glob("update-*"), key=lambda path: int(path.name.removeprefix("update-")))[:-keep]:
        if best is None or old.name != name_of(best):
            shutil.rmtree(old)
    return final


def name_of(update: int) -> str:
    return f"update-{update:06d}"


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None; a pointer to a folder that was removed points to nothing."""
    pointer = folder / "latest"
    newest = folder / pointer.read_text() if pointer.exists() else None
    return newest if newest is not None and (newest / META).exists() else None


def selected(folder: Path) -> Path | None:
    """The checkpoint that counts, as far as the newest one tells; None without any. Raises MuvlaError if it is not
    there any more."""
    newest = latest(folder)
    best = None if newest is None else (read_json(newest / META).get("selection") or {}).get("best")
    chosen = newest if best is None else folder / name_of(best)
    if chosen is not None and not (chosen / META).exists():
        raise MuvlaError(
            str(chosen),
            got="no such folder",
            expected="the checkpoint that the training selected",
            remedy=f"put it back, or remove {folder} to train the cell again",
        )
    return chosen


def load(path: Path, parts: tuple[str, ...] = FILES) -> Checkpoint:
    """With these of its tensors. Raises MuvlaError for a missing or changed file, naming it."""
    meta = read_json(path / META)
    _verify(path, {part: meta["sha256"][part] for part in parts})
    tensors = {}
    for part in parts:
        try:
            tensors[part] = load_file(path / f"{part}.safetensors")
        except (SafetensorError, OSError) as error:
            raise _broken(path / f"{part}.safetensors", str(error)) from None
    return Checkpoint(
        meta["update"],
        from_dict(Cell, meta["cell"]),
        meta.get("start"),
        Interface(**meta["interface"]),
        from_dict(Statistics, meta["statistics"], "statistics."),
        meta["cursor"],
        tensors,
        meta.get("selection"),
    )


def load_policy(checkpoint: Checkpoint) -> Policy:
    """Raises MuvlaError if what the training started from is not there any more."""
    now = start_content(checkpoint.cell)
    if now != checkpoint.start:
        raise MuvlaError(
            f"start.checkpoint {checkpoint.cell.start.checkpoint}",
            got=f"content {now}",
            expected=f"content {checkpoint.start}, from which this was trained",
            remedy="put that checkpoint back, or say where it is now with `muvla train STUDY --set start.checkpoint=…`",
        )
    policy = build_policy(checkpoint.cell, checkpoint.interface)
    load_parameters(stored_parameters(policy, checkpoint.cell), checkpoint.tensors["model"])
    return policy


@torch.no_grad()
def load_parameters(own: dict[str, Tensor], tensors: TensorFile) -> None:
    """Into a policy's parameters. Strict: a missing, unexpected or misshapen tensor raises MuvlaError that lists the
    difference."""
    wrong = [f"missing {n}" for n in own.keys() - tensors.keys()]
    wrong += [f"unexpected {n}" for n in tensors.keys() - own.keys()]
    wrong += [
        f"{n} is {tuple(tensors[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own.keys() & tensors.keys()
        if own[n].shape != tensors[n].shape
    ]
    if wrong:
        raise MuvlaError(
            "checkpoint",
            got="; ".join(sorted(wrong)[:8]),
            expected=f"the {len(own)} tensors of this cell's policy",
            remedy="load it with the configuration that it was written with (checkpoint.json beside it)",
        )
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> TensorFile:
    """AdamW's moments and step counts by parameter name, `names` being in the optimizer's order."""
    states = optimizer.state_dict()["state"]
    return {f"{names[i]}/{key}": value for i, state in states.items() for key, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: TensorFile) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        states.setdefault(names.index(name), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _verify(path: Path, hashes: dict[str, str]) -> None:
    for part, expected in hashes.items():
        file = path / f"{part}.safetensors"
        if not file.exists():
            raise _broken(file, "no such file")
        if _sha256(file) != expected:
            raise _broken(file, "other content than its recorded hash")


def _broken(file: Path, got: str) -> MuvlaError:
    return MuvlaError(
        str(file),
        got=got,
        expected="the file as it was written",
        remedy="remove its folder; training starts again from the beginning of the cell",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
