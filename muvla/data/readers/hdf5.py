"""The arrays of HDF5 files as features; `muvla.utils.hdf5` opens the files and refuses what lies outside of them.

Legend: T steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.source import Feature, mismatch
from muvla.errors import MuvlaError
from muvla.utils.hdf5 import get_node, open_hdf5, read_dataset
from muvla.utils.packages import import_package

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DEEPEST = 16  # groups inside each other
MOST_NODES = 20_000  # groups and arrays of an episode
# An array that declares more than this must store a share of its bytes; deflate compresses by at most 1032.
UNSTORED_BYTES, BEST_COMPRESSION = 2**26, 1100
MOST_TEXTS = 100_000  # in an array: a text of variable length stores its bytes elsewhere, or nowhere
LARGEST_CHUNK = 2**28  # bytes; HDF5 holds whole chunks in memory


def is_hdf5(path: Path) -> bool:
    """True for a file that begins as HDF5 does."""
    try:
        with path.open("rb") as handle:
            return handle.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def get_names(path: Path, group: str = "/") -> list[str]:
    """Returns the names in a group of an HDF5 file; none for another file and for a group that the file lacks.

    Raises MuvlaError for a cut HDF5 file and without the package h5py.
    """
    if not is_hdf5(path):
        return []
    with open_hdf5(path) as file:
        node = find_node(file, group.strip("/"), str(path)) if group.strip("/") else file
        return list_names(node, str(path))


@contextlib.contextmanager
def damage(where: object) -> Iterator[None]:
    """Names the place at which h5py finds damage."""
    try:
        yield
    except MuvlaError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise mismatch(str(where), f"damage ({_first_line(error)})", "whole arrays") from None


def find_node(group: Any, path: str, where: str) -> Any | None:
    """Returns the group or array under a path, or None where the file has none.

    Raises MuvlaError, with `where` and the path, for a link, and for storage outside of the file.
    """
    node = group
    for name in path.split("/"):
        with damage(f"{where}: {path}"):
            if not hasattr(node, "keys") or not node.id.links.exists(name.encode()):
                return None
        node = get_node(node, name, f"{where}: {path}")
    return node


def describe_link(group: Any, name: str) -> str:
    """Returns "" for data in the group itself, and a description for a link."""
    h5py = import_package("h5py", "to read HDF5 files")
    if group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
        return ""
    target = group.get(name, getlink=True)
    if hasattr(target, "filename"):
        return f"an external link to {target.filename}: {target.path}"
    return f"a soft link to {target.path}"


def list_names(group: Any, where: str) -> list[str]:
    """Returns the names in a group; none for an array. Raises MuvlaError, with `where`, for damage."""
    with damage(where):
        names = list(group) if hasattr(group, "keys") else []
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name that is no UTF-8")
    return names


def list_features(group: Any, where: str) -> dict[str, Feature]:
    """Returns every array, group and link below a group by path, in the file's order; reads no value.

    Raises MuvlaError for groups that contain themselves.
    """
    features: dict[str, Feature] = {}
    with damage(where):
        _list(group, "", features, where, 0)
    return features


def _list(group: Any, prefix: str, features: dict[str, Feature], where: str, depth: int) -> None:
    if depth > DEEPEST or len(features) > MOST_NODES:
        raise mismatch(where, "groups inside each other without an end, or too many", "the arrays of one episode")
    for name in list_names(group, where):
        path = f"{prefix}{name}"
        if link := describe_link(group, name):
            features[path] = Feature(path, link)
            continue
        node = group[name]
        if hasattr(node, "keys"):
            features[path] = Feature(path, f"a group of {', '.join(list(node)[:8]) or 'nothing'}")
            _list(node, f"{path}/", features, where, depth + 1)
        elif hasattr(node, "shape"):
            features[path] = _describe(path, node)


def _describe(path: str, array: Any) -> Feature:
    """Returns the feature of an array whose first axis is the steps; an array without axes is a text or unreadable."""
    if is_text(array.dtype):
        return Feature(path, "text", "string")
    if array.dtype.kind not in "fiub" or not array.shape:
        return Feature(path, f"values of dtype {array.dtype}")
    shape = tuple(array.shape[1:])
    image = array.dtype == np.uint8 and len(shape) == 3 and shape[2] in (1, 3, 4)
    return Feature(path, "image" if image else "tensor", array.dtype.name, shape)


def is_text(dtype: np.dtype) -> bool:
    """True for the dtypes of texts, of fixed and of variable length."""
    h5py = import_package("h5py", "to read HDF5 files")
    return dtype.kind in "SU" or h5py.check_string_dtype(dtype) is not None


def read_array(group: Any, path: str, where: str) -> np.ndarray:
    """Returns the values of an array: numbers as stored, texts as str.

    Raises MuvlaError, with `where` and the path, for a missing array, a link, storage outside of the file, damage, and
    a declared size that the file does not store.
    """
    at = f"{where}: {path}"
    array = find_node(group, path, where)
    if array is None:
        raise mismatch(at, "no such array", "this array, as in the first episode")
    if not hasattr(array, "shape"):
        raise mismatch(at, "a group", "an array")
    with damage(at):
        _require_stored(array, at)
        if is_text(array.dtype):
            if prod(array.shape) > MOST_TEXTS:
                raise mismatch(at, f"{prod(array.shape)} texts", f"at most {MOST_TEXTS} texts")
            values = np.ravel(array[()])
            return np.array([decode_text(value) for value in values.tolist()], dtype=np.str_)
    return read_dataset(array, at)


def _require_stored(array: Any, where: str) -> None:
    """Raises MuvlaError for an array that declares more than the file stores."""
    size = array.dtype.itemsize * int(np.prod(array.shape, dtype=object))
    stored = array.id.get_storage_size()
    if size > UNSTORED_BYTES and size > BEST_COMPRESSION * stored:
        raise mismatch(where, f"{size} declared bytes, {stored} stored ones", "an array that the file stores")
    chunk = array.dtype.itemsize * int(np.prod(array.chunks or (0,), dtype=object))
    if chunk > LARGEST_CHUNK:
        raise mismatch(where, f"chunks of {chunk} bytes", f"chunks of at most {LARGEST_CHUNK} bytes")


def list_texts(group: Any, where: str) -> dict[str, str]:
    """Returns the attributes of a group that are single texts; others are not read."""
    texts = {}
    with damage(f"{where}: attributes"):
        for name in group.attrs:
            attribute = group.attrs.get_id(name)
            if prod(attribute.shape) == 1 and is_text(attribute.dtype):
                value = np.ravel(group.attrs[name])
                texts[name] = decode_text(value[0])
    return texts


def decode_text(value: Any) -> str:
    """Returns a text; bytes that are not UTF-8 are replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
