"""Files of tensors: safetensors, whole or in shards, and the pickles of older releases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from muvla.errors import MuvlaError
from muvla.files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "download the file again"


class Shards(Mapping[str, Tensor]):
    """The tensors of `model.safetensors`, or of the shards that its index names. Names and shapes are read at once, a
    value when it is asked for. Raises MuvlaError for a missing or cut file."""

    def __init__(self, path: Path):
        if (path / INDEX).exists():
            files = read_json(path / INDEX).get("weight_map", {})
        elif (path / WEIGHTS).exists():
            files = dict.fromkeys(_open(path / WEIGHTS).keys(), WEIGHTS)
        else:
            adapter = (path / "lora_adapter").exists()
            raise MuvlaError(
                str(path), got=f"neither {INDEX} nor {WEIGHTS}", expected="the weights",
                remedy="merge lora_adapter into its base first" if adapter else "download them",
            )  # fmt: skip
        self.files = {name: path / file for name, file in files.items()}
        self._handles = {file: _open(file) for file in sorted(set(self.files.values()))}
        present = {file: set(handle.keys()) for file, handle in self._handles.items()}
        for name, file in self.files.items():
            if name not in present[file]:
                raise MuvlaError(str(file), got=f"no {name}", expected=f"it here, as {INDEX} says", remedy=AGAIN)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {n: tuple(self._handles[file].get_slice(n).get_shape()) for n, file in self.files.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._handles[self.files[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def read_pickle(path: Path, prefix: str) -> dict[str, Tensor]:
    """Tensors by name without `prefix`, which every name must have. Runs no code from the file."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut archive, code in the pickle, no pickle at all: torch has an error for each
        raise MuvlaError(
            str(path), got=f"unreadable ({(str(error) or type(error).__name__).splitlines()[0][:120]})",
            expected="a dictionary of tensors, and nothing that runs code", remedy=AGAIN,
        ) from None  # fmt: skip
    names = list(tensors) if isinstance(tensors, dict) else [type(tensors).__name__]
    wrong = [n for n in names if not (isinstance(n, str) and n.startswith(prefix))]
    if wrong or not isinstance(tensors, dict):
        raise MuvlaError(
            str(path), got=f"names such as {wrong[:3]}", expected=f"tensors whose names begin with {prefix!r}",
            remedy="check that the file is what its name says",
        )  # fmt: skip
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def write_pickle(path: Path, tensors: dict[str, Tensor], prefix: str) -> None:
    torch.save({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _open(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise MuvlaError(str(path), got=f"unreadable ({error})", expected="a whole shard", remedy=AGAIN) from None
