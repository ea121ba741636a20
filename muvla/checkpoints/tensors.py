"""Files of tensors: safetensors, whole or in shards, and the pickles of older releases."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import msgspec
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from muvla.errors import MuvlaError
from muvla.utils.files import require_file
from muvla.utils.foreign import read_model
from muvla.utils.io import write_atomically, write_json
from muvla.utils.names import inside

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DOWNLOAD_AGAIN = "download the file again"


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class Shards(Mapping[str, Tensor]):
    """The tensors of `model.safetensors`, or of the shards that its index names.

    Opening reads names and shapes; a value is read on access. Raises MuvlaError for a missing or cut file.
    """

    def __init__(self, path: Path):
        if (path / INDEX).exists():
            files = read_model(path / INDEX, _Index).weight_map
        elif (path / WEIGHTS).exists():
            files = dict.fromkeys(_open(path / WEIGHTS).keys(), WEIGHTS)
        else:
            adapter = (path / "lora_adapter").exists()
            raise MuvlaError(
                str(path),
                got=f"neither {INDEX} nor {WEIGHTS}",
                expected="the weights",
                remedy="merge lora_adapter into its base first" if adapter else "download the weights",
            )
        self.files = {name: inside(path, file, f"{path / INDEX}: weight_map") for name, file in files.items()}
        self._handles = {file: _open(file) for file in sorted(set(self.files.values()))}
        present = {file: set(handle.keys()) for file, handle in self._handles.items()}
        for name, file in self.files.items():
            if name not in present[file]:
                expected = f"this tensor, by {INDEX}"
                raise MuvlaError(str(file), got=f"no {name}", expected=expected, remedy=DOWNLOAD_AGAIN)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {n: tuple(self._handles[file].get_slice(n).get_shape()) for n, file in self.files.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._handles[self.files[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Returns tensors by name, without the prefix `module.` of DDP.

    Values are read on use, and no code of the file is run. Raises MuvlaError for a file that holds anything else.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch has an error class each for a cut archive, code in a pickle, and no pickle
        raise MuvlaError(
            str(path),
            got=f"unreadable ({(str(error) or type(error).__name__).splitlines()[0][:120]})",
            expected="a dictionary of tensors, and nothing that runs code",
            remedy=DOWNLOAD_AGAIN,
        ) from None
    inside = tensors.items() if isinstance(tensors, dict) else [("", tensors)]
    wrong = [f"{n}: {type(t).__name__}" for n, t in inside if not (isinstance(n, str) and isinstance(t, Tensor))]
    if wrong:
        raise MuvlaError(
            str(path),
            got="; ".join(wrong[:3]),
            expected="tensors by name",
            remedy=DOWNLOAD_AGAIN,
        )
    return {name.removeprefix("module."): tensor for name, tensor in inside}


def pickle_tensors(tensors: dict[str, Tensor]) -> bytes:
    content = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, content)
    return content.getvalue()


def write_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Writes `model.safetensors`, or shards of at most 5 GB with their index."""
    plan = split_torch_state_dict_into_shards(tensors, max_shard_size="5GB")
    for file, names in plan.filename_to_tensors.items():
        shard = {name: tensors[name].contiguous() for name in names}
        write_verified(folder / file, serialise(shard, metadata={"format": "pt"}))
    if plan.is_sharded:
        write_json(folder / INDEX, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})


def write_verified(path: Path, content: bytes) -> None:
    """Writes the content, reads it again and compares. The libraries' writers would hide a full disk in their own
    errors."""
    write_atomically(path, content)
    if _digest(path) != hashlib.sha256(content).hexdigest():
        raise MuvlaError(
            str(path),
            got="content that differs from what was written",
            expected="the same bytes",
            remedy="check the disk",
        )


def sha256(path: Path) -> str:
    """Returns the file's hash; cached while size and modification time stay, because every cell of a study asks
    for it."""
    status = path.stat()
    return _cached_digest(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _cached_digest(path: Path, size: int, changed: int) -> str:
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _open(path: Path):
    require_file(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise MuvlaError(
            str(path), got=f"unreadable ({error})", expected="a whole shard", remedy=DOWNLOAD_AGAIN
        ) from None
