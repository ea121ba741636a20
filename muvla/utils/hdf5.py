"""HDF5 files that others wrote: no link leaves the file, no value lies outside, sizes before values are read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from muvla.errors import MuvlaError
from muvla.utils.arrays import NUMBERS, require_array, require_size
from muvla.utils.files import require_file
from muvla.utils.packages import import_package

DEPTH = 32  # of groups in groups
NODES = 1_000_000


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading. Raises MuvlaError for a file that is missing, a Git LFS pointer or no HDF5."""
    h5py = import_package("h5py", "to read HDF5 files")
    require_file(path)
    with _damage(str(path)):
        file = h5py.File(path, "r")
    with file:
        yield file


def get_node(file: Any, path: str, field: str) -> Any:
    """Return the group or dataset at `path`, every part of which lies in this file.

    Args:
        file: an open file or a group.
        path: names of groups and of the dataset, with `/`.
        field: file and place, for errors.

    Raises:
        MuvlaError: no such node, a soft or external link, external storage, a virtual dataset, or damage.
    """
    h5py = import_package("h5py", "to read HDF5 files")
    node = file
    for name in path.strip("/").split("/"):
        with _damage(f"{field}: {path}"):
            link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            names = ", ".join(list(node)[:12]) if isinstance(node, h5py.Group) else "a dataset"
            raise MuvlaError(
                f"{field}: {path}",
                got=f"no {name!r} among {names or 'nothing'}",
                expected="a group or a dataset of this path",
                remedy=f"list the file with `h5ls -r {field.partition(': ')[0]}`, and name a path that exists",
            )
        require_hard_link(link, f"{field}: {path}")
        with _damage(f"{field}: {path}"):
            node = node[name]
        if isinstance(node, h5py.Dataset):
            _require_own_storage(node, f"{field}: {path}")
    return node


def require_hard_link(link: Any, field: str) -> None:
    """Raises MuvlaError for a soft or an external link: a link may point at another file or at nothing."""
    h5py = import_package("h5py", "to read HDF5 files")
    if isinstance(link, h5py.HardLink):
        return
    target = getattr(link, "path", "")
    file = getattr(link, "filename", None)
    raise MuvlaError(
        field,
        got=f"a link to {target!r}" + (f" in the file {file!r}" if file else ""),
        expected="the data itself",
        remedy="copy the data into the file, as `file.copy(…, expand_soft=True, expand_external=True)` of h5py does",
    )


def _require_own_storage(dataset: Any, field: str) -> None:
    with _damage(field):
        outside = dataset.external
        virtual = dataset.is_virtual
    if outside:
        raise MuvlaError(
            field,
            got=f"values that lie in the file {outside[0][0]!r}",
            expected="values in this file",
            remedy="copy the values into the file with `h5repack`, which removes external storage",
        )
    if virtual:
        raise MuvlaError(
            field,
            got="a virtual dataset, whose values lie in other files",
            expected="values in this file",
            remedy="copy the values into one file, for example with h5py: `file.create_dataset(name, data=old[()])`",
        )


def walk(group: Any, field: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, dataset) of every dataset below `group`, in order of names. Raises MuvlaError as `get_node` does."""
    h5py = import_package("h5py", "to read HDF5 files")
    stack, nodes = [("", 0)], 0
    while stack:
        path, depth = stack.pop()
        node = get_node(group, path, field) if path else group
        nodes += 1
        if depth > DEPTH or nodes > NODES:
            raise _damaged(field, f"more than {DEPTH} groups in groups, or {NODES} nodes")
        if isinstance(node, h5py.Group):
            with _damage(field):
                names = sorted(node, reverse=True)
            stack += [(f"{path}/{name}".lstrip("/"), depth + 1) for name in names]
        elif isinstance(node, h5py.Dataset):
            yield path, node


def read_dataset(
    dataset: Any, field: str, *, kinds: str = NUMBERS, shape: tuple[int | None, ...] | None = None
) -> np.ndarray:
    """Read a dataset of `get_node` whole.

    Args:
        dataset: the dataset.
        field: file and place, for errors.
        kinds: accepted kinds of dtypes, as in `muvla.utils.arrays.require_array`.
        shape: expected shape; None accepts any size, in a dimension or as a whole.

    Raises:
        MuvlaError: a group, more bytes than the file can hold, another dtype or shape, or damage.
    """
    h5py = import_package("h5py", "to read HDF5 files")
    if not isinstance(dataset, h5py.Dataset):
        raise MuvlaError(
            field, got="a group", expected="a dataset", remedy="name a path of a dataset; `h5ls -r FILE` lists them"
        )
    with _damage(field):
        size = Path(dataset.file.filename).stat().st_size
        claimed, itemsize = dataset.shape or (), dataset.dtype.itemsize
    require_size(claimed, itemsize, size, field)
    with _damage(field):
        values = dataset[()]
    return require_array(values, field, kinds=kinds, shape=shape)


def read_text(dataset: Any, field: str) -> str:
    """Read one text from a dataset or an attribute's value. Raises MuvlaError for anything else and for no UTF-8."""
    h5py = import_package("h5py", "to read HDF5 files")
    with _damage(field):
        value = dataset[()] if isinstance(dataset, h5py.Dataset) else dataset
    value = value.reshape(()).item() if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1 else value
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        text = None
    if not isinstance(text, str):
        raise MuvlaError(
            field,
            got=f"a value of type {type(value).__name__}",
            expected="one text in UTF-8",
            remedy="write the text there as a string dataset of h5py",
        )
    return text


def get_attribute(node: Any, name: str, field: str) -> Any:
    """Return an attribute of a node as the library reads it; None where the node lacks it."""
    with _damage(f"{field}: attribute {name}"):
        return node.attrs.get(name)


@contextlib.contextmanager
def _damage(field: str) -> Iterator[None]:
    """Turn the library's errors into a MuvlaError. The block holds calls of the library alone."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise _damaged(field, str(error)) from None


def _damaged(field: str, got: str) -> MuvlaError:
    return MuvlaError(
        field,
        got=f"no whole HDF5 data ({got})",
        expected="data that the HDF5 library can read",
        remedy="restore the file from its source, or run the program again that wrote the file; `h5dump -H` shows the "
        "last readable part",
    )
