"""Files of tensors: safetensors, whole or in shards, and the pickles of older releases."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from muvla.errors import MuvlaError
from muvla.utils.content import describe_format, require_real
from muvla.utils.io import read_json, write_atomically, write_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
COMPARE_HASHES = "compare `sha256sum` of the file with its page in the repository, and fetch a file that differs"
FLOATS = ("F64", "F32", "F16", "BF16")  # of the safetensors format
FLOAT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Shards(Mapping[str, Tensor]):
    """The tensors of `model.safetensors`, or of the shards that its index names.

    Opening reads names and shapes; a value is read on access. Raises MuvlaError for a missing or cut file, and for a
    shard outside the folder.
    """

    def __init__(self, path: Path):
        if (path / INDEX).exists():
            files = _read_index(path / INDEX)
        elif (path / WEIGHTS).exists():
            files = dict.fromkeys(_open(path / WEIGHTS).keys(), WEIGHTS)
        else:
            raise MuvlaError(
                str(path),
                got=f"neither {INDEX} nor {WEIGHTS}",
                expected="the weights",
                remedy=f"fetch the files model*.safetensors of the repository into {path}",
            )
        self.files = {name: path / file for name, file in files.items()}
        for file in sorted(set(self.files.values())):
            require_inside(file, path)
        self._handles = {file: _open(file) for file in sorted(set(self.files.values()))}
        present = {file: set(handle.keys()) for file, handle in self._handles.items()}
        for name, file in self.files.items():
            if name not in present[file]:
                raise MuvlaError(
                    str(file),
                    got=f"no {name}",
                    expected=f"this tensor, by {INDEX}",
                    remedy=f"take {INDEX} and all shards from one repository and revision",
                )

    @cached_property
    def dtypes(self) -> dict[str, str]:
        return {n: self._handles[file].get_slice(n).get_dtype() for n, file in self.files.items()}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {n: tuple(self._handles[file].get_slice(n).get_shape()) for n, file in self.files.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._handles[self.files[name]].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def _read_index(path: Path) -> dict[str, str]:
    """Returns the file of every tensor. Raises MuvlaError for anything but names of files in the same folder."""
    index = read_json(path)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files:
        raise MuvlaError(
            f"{path}: weight_map",
            got="no files by tensor",
            expected="an object with the file of every tensor",
            remedy=f"take {INDEX} from the repository that the shards come from",
        )
    for name, file in files.items():
        if not isinstance(file, str) or Path(file).name != file or "\0" in file or not file.endswith(".safetensors"):
            raise MuvlaError(
                f"{path}: weight_map: {name[:200]}",
                got=repr(file)[:200],
                expected="the name of a .safetensors file in the same folder",
                remedy=f"move the shards beside {INDEX} and write their names, without a folder",
            )
    return files


def require_inside(file: Path, folder: Path) -> None:
    """Raises MuvlaError if the file is a link to a place outside the folder.

    The Hub's cache keeps files in `blobs` and links them into a snapshot; such a link is accepted.
    """
    target = _resolved(file)
    cached = target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")
    if not (target.is_relative_to(_resolved(folder)) or cached):
        raise MuvlaError(
            str(file),
            got=f"a link to {target}",
            expected=f"a file in {folder}",
            remedy="copy the file into the folder in place of the link",
        )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        return path.absolute()


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Returns tensors by name, without the prefix `module.` of DDP.

    Values are read on use, and no code of the file is run. Raises MuvlaError for a file that holds anything else.
    """
    require_real(path, "a dictionary of tensors")
    tensors = load_pickle(path, "a file of torch.save with tensors by name, and nothing that runs code")
    inside = list(tensors.items()) if isinstance(tensors, dict) else [("", tensors)]
    wrong = [f"{n}: {problem}" for n, t in inside if (problem := explain_entry(n, t))]
    if wrong:
        raise MuvlaError(
            str(path),
            got="; ".join(wrong[:3]),
            expected="dense tensors by name",
            remedy="take the file as the published training saved it: this file holds something else",
        )
    return {name.removeprefix("module."): tensor for name, tensor in inside}


def load_pickle(path: Path, expected: str) -> object:
    """Returns the content of a file of torch.save, mapped into memory; no code of the file is run.

    Raises MuvlaError, with what was `expected`, for a file that torch does not read in this way.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch has an error class each for a cut archive, code in a pickle, and no pickle
        form = describe_format(path)
        detail = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise MuvlaError(
            str(path),
            got=f"{form or 'content that torch does not read'} ({detail})",
            expected=expected,
            remedy=COMPARE_HASHES,
        ) from None


def explain_entry(name: object, value: object) -> str | None:
    """Returns why an entry of a pickle is no tensor that can be read; None if it is."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_meta:
        return "a tensor without values (meta)"
    if value.layout != torch.strided:
        return f"a sparse tensor ({value.layout})"
    if value.is_quantized:
        return f"a quantised tensor ({value.dtype})"
    if value.ndim == 0:
        return "a single number (0 dimensions)"
    return None


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
    require_real(path, "tensors in the safetensors format")
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise MuvlaError(
            str(path),
            got="no such file",
            expected=f"a shard that {INDEX} names",
            remedy=f"fetch {path.name} of the repository into {path.parent}",
        ) from None
    except (SafetensorError, OSError) as error:
        form = describe_format(path)
        named = "" if form in (None, "safetensors") else f"{form}: "
        raise MuvlaError(
            str(path),
            got=f"{named}unreadable as safetensors ({error}), {path.stat().st_size:,} bytes",
            expected="a whole file of tensors in the safetensors format",
            remedy=COMPARE_HASHES,
        ) from None
