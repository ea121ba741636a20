"""Checkpoints of a training: whole or absent, verified after writing, exact enough to continue bit for bit.

A checkpoint is a folder `update-000500` with safetensors and JSON. It is written under a temporary name and renamed,
and the file `latest` names the newest checkpoint. Nothing is pickled. All randomness is keyed, so no generator state is
saved.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import to_builtins
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from muvla.checkpoints.tensors import require_inside
from muvla.config import Cell
from muvla.config.serialization import from_dict, to_dict
from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError, located
from muvla.models.policy import Interface
from muvla.utils.files import read_text
from muvla.utils.foreign import decode, read_model
from muvla.utils.io import disk_errors, write_atomically, write_json

TensorFile = dict[str, Tensor]
FILES = ("model", "optimizer", "memory")
META = "checkpoint.json"
WEIGHTS = "weights"  # folder of a run beside its checkpoints: policies without the state that a training continues from
NAME = re.compile(r"update-\d{1,18}", re.ASCII)
REPLACED = ".replaced.json"  # checkpoints that are about to be removed; only a killed process leaves the file


POINTER_BYTES = 1024
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**20)]


class _Interface(msgspec.Struct):
    cameras: Dimension
    proprio_dim: Dimension
    action_dim: Dimension
    text: Dimension
    text_padded: bool
    first_image: bool = False
    robot_cameras: Dimension | None = None
    target_in_text: bool = False
    camera_numbers: list[Dimension] | None = None


class _Selection(msgspec.Struct):
    total: float
    updates: Count
    best: Count | None
    lowest: float | None


class _Meta(msgspec.Struct):
    """The content of checkpoint.json."""

    update: Count
    cell: dict[str, Any]
    interface: _Interface
    statistics: dict[str, Any]
    cursor: dict[str, Any]
    sha256: dict[Literal["model", "optimizer", "memory"], str]
    start: str | None = None
    selection: _Selection | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a training at one update."""

    update: int
    cell: Cell  # canonical
    start: str | None  # hash of the checkpoint that training started from
    interface: Interface
    statistics: Statistics
    cursor: dict[str, Any]  # state of the slot stream
    tensors: dict[str, TensorFile]  # model, optimizer, memory
    selection: dict[str, Any] | None = None  # state of `muvla.training.selection`; None: the last checkpoint counts


def save(folder: Path, checkpoint: Checkpoint, keep: int = 1) -> Path:
    """Writes `folder/update-…`, verifies it and points `latest` at it.

    Older checkpoints are removed, except the newest `keep` and the selected checkpoint.
    """
    name = folder_name(checkpoint.update)
    temporary, final = folder / f".{name}.tmp", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(folder):
        temporary.mkdir(parents=True)
        hashes = {}
        for part, tensors in checkpoint.tensors.items():
            # safetensors' file writer would turn a full disk into a SafetensorError.
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
        write_json(folder / REPLACED, {"by": name, "names": _replaced(folder, checkpoint, keep)})
        write_atomically(folder / "latest", name.encode())
        remove_unfinished(folder)
    return final


def _replaced(folder: Path, checkpoint: Checkpoint, keep: int) -> list[str]:
    """Names of the checkpoints that are neither among the newest `keep` nor selected."""
    best = (checkpoint.selection or {}).get("best")
    names = [path.name for path in folder.glob("update-*")]
    older = sorted(names, key=lambda name: int(name.removeprefix("update-")))[:-keep]
    return [name for name in older if best is None or name != folder_name(best)]


class _Replaced(msgspec.Struct):
    by: str
    names: list[Annotated[str, msgspec.Meta(pattern=r"^update-\d+$")]]


def remove_unfinished(folder: Path) -> None:
    """Removes checkpoints that a killed process has not finished, and checkpoints that the newest one replaces.

    No other process may save into this folder.
    """
    for unfinished in folder.glob(".update-*.tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not (folder / REPLACED).exists():
        return
    replaced, newest = read_model(folder / REPLACED, _Replaced), latest(folder)
    if newest is not None and newest.name == replaced.by:  # else the process was killed before the new one counted
        for name in replaced.names:
            shutil.rmtree(folder / name, ignore_errors=True)
    (folder / REPLACED).unlink()


def folder_name(update: int) -> str:
    return f"update-{update:06d}"


def latest(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint; None where the folder holds none.

    The file `latest` names it. Where the named folder is gone, the newest whole folder counts: a training continues
    from any whole checkpoint to the same end, and never starts anew beside one.

    Raises:
        MuvlaError: `latest` holds no name of a checkpoint, or names a link that leaves the folder.
    """
    pointer = folder / "latest"
    with disk_errors(pointer):
        named = folder / _read_pointer(pointer) if pointer.exists() or pointer.is_symlink() else None
        if named is not None and (named / META).exists():
            require_inside(named, folder)
            return named
        whole = [path for path in folder.glob("update-*") if NAME.fullmatch(path.name) and (path / META).is_file()]
    return max(whole, key=lambda path: int(path.name.removeprefix("update-")), default=None)


def _read_pointer(pointer: Path) -> str:
    """Returns the name in the file `latest`, without outer white space."""
    try:
        name = read_text(pointer, POINTER_BYTES).strip()
    except MuvlaError as error:
        got: object = error.got
    else:
        if NAME.fullmatch(name):
            return name
        got = ascii(name)[:80]
    raise MuvlaError(
        str(pointer),
        got=got,
        expected="the name of a checkpoint's folder, for example update-000500",
        remedy=f"remove {pointer}: the training then continues from the newest whole checkpoint in this folder",
    )


def selected(folder: Path) -> Path | None:
    """Returns the checkpoint to evaluate, by the newest checkpoint's selection; None without any checkpoint.

    Raises MuvlaError if the selected folder is missing.
    """
    newest = latest(folder)
    selection = None if newest is None else _read_meta(newest).selection
    best = None if selection is None else selection.best
    chosen = newest if best is None else folder / folder_name(best)
    if chosen is not None and not (chosen / META).exists():
        raise MuvlaError(
            str(chosen),
            got="no such folder",
            expected="the checkpoint that the training selected",
            remedy=f"restore the folder, or remove {folder} to train the cell again",
        )
    return chosen


def load(path: Path, parts: tuple[str, ...] = FILES) -> Checkpoint:
    """Reads a checkpoint with these parts of its tensors. Raises MuvlaError for a missing or changed file."""
    meta, file = _read_meta(path), path / META
    if missing := [part for part in parts if part not in meta.sha256]:
        raise _broken(file, f"no hash of {', '.join(missing)}")
    _verify(path, {part: meta.sha256[part] for part in parts})
    tensors = {}
    for part in parts:
        try:
            tensors[part] = load_file(path / f"{part}.safetensors")
        except (SafetensorError, OSError) as error:
            raise _broken(path / f"{part}.safetensors", str(error)) from None
    with located(file):
        cell, statistics = from_dict(Cell, meta.cell), from_dict(Statistics, meta.statistics, "statistics.")
    interface = decode(to_builtins(meta.interface), Interface, f"{file}: interface")
    selection = None if meta.selection is None else to_builtins(meta.selection)
    return Checkpoint(meta.update, cell, meta.start, interface, statistics, meta.cursor, tensors, selection)


def hash_model(path: Path) -> str:
    """Returns the recorded SHA-256 of a checkpoint's parameters."""
    return _read_meta(path).sha256["model"]


def _read_meta(path: Path) -> _Meta:
    return read_model(path / META, _Meta)


def verify(path: Path) -> Checkpoint:
    """Returns a checkpoint without its tensors, after a check of all files. Raises MuvlaError for a missing or changed
    file."""
    _verify(path, _read_meta(path).sha256)
    return load(path, parts=())


@torch.no_grad()
def load_parameters(parameters: dict[str, Tensor], tensors: TensorFile) -> None:
    """Copies tensors into parameters of the same names. Raises MuvlaError for missing, unexpected or misshapen
    tensors."""
    require_tensors(parameters, tensors)
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def require_tensors(parameters: dict[str, Tensor], tensors: TensorFile) -> None:
    """Raises MuvlaError for tensors that are missing, unexpected or misshapen."""
    wrong = [f"missing {n}" for n in parameters.keys() - tensors.keys()]
    wrong += [f"unexpected {n}" for n in tensors.keys() - parameters.keys()]
    wrong += [
        f"{n} is {tuple(tensors[n].shape)} instead of {tuple(parameters[n].shape)}"
        for n in parameters.keys() & tensors.keys()
        if parameters[n].shape != tensors[n].shape
    ]
    if wrong:
        raise MuvlaError(
            "checkpoint",
            got="; ".join(sorted(wrong)[:8]),
            expected=f"the {len(parameters)} tensors of this cell's policy",
            remedy="load the checkpoint with the configuration in its checkpoint.json",
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> TensorFile:
    """Returns AdamW's moments and step counts as `parameter name/key`; `names` has the optimizer's order."""
    states = optimizer.state_dict()["state"]
    return {f"{names[i]}/{key}": value for i, state in states.items() for key, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: TensorFile) -> None:
    """Puts tensors of `optimizer_tensors` back into the optimizer."""
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
        remedy="remove the checkpoint's folder; training then starts again from update 0",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
