"""Arrays that others wrote: sizes before values are read, dtypes, shapes, finite numbers, archives of numpy."""

from __future__ import annotations

import contextlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from muvla.errors import MuvlaError
from muvla.utils.files import MIB, disk_errors, require_file

ARRAY_BYTES = 512 * MIB  # of one read, for files that are smaller than EXPANSION says
EXPANSION = 20  # times the bytes of its file, for larger files
MEMBERS = 10_000  # arrays in an archive
HEADER = 2**14  # bytes of an array's header
NUMBERS = "biuf"  # kinds of dtypes: bool, signed, unsigned, float


def allowance(file_bytes: int) -> int:
    """Bytes that may be read at once from a file of `file_bytes`: compression hides how large an array becomes."""
    return max(ARRAY_BYTES, EXPANSION * file_bytes)


def require_size(shape: tuple[int, ...], itemsize: int, file_bytes: int, field: str) -> None:
    """Raises MuvlaError for an array that claims more bytes than its file can hold.

    Args:
        shape: the shape by the array's header.
        itemsize: bytes of an element.
        file_bytes: size of the file.
        field: file and name of the array, for errors.
    """
    claimed = itemsize * math.prod(shape)
    if any(size < 0 for size in shape) or claimed > allowance(file_bytes):
        raise MuvlaError(
            field,
            got=f"shape {shape}, which is {claimed} bytes",
            expected=f"at most {allowance(file_bytes)} bytes in a file of {file_bytes} bytes",
            remedy="write the array again with the program that made the file; the header does not fit the file",
        )


def require_array(
    value: Any, field: str, *, kinds: str = NUMBERS, shape: tuple[int | None, ...] | None = None, finite: bool = False
) -> np.ndarray:
    """Return `value` as an array that holds what is declared.

    Args:
        value: an array or nested lists.
        field: file and name of the array, for errors.
        kinds: accepted kinds of numpy's dtypes, for example `f` for floats and `U` for text.
        shape: expected shape; None accepts any size, in a dimension or as a whole.
        finite: refuse NaN and infinity.

    Raises:
        MuvlaError: another kind of value, another shape, or a number that is not finite.
    """
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise _other(field, "lists of several lengths or types", "one array") from None
    if array.dtype.kind not in kinds:
        raise _other(field, f"dtype {array.dtype}", " or ".join(_KINDS[letter] for letter in kinds))
    if shape is not None and (
        array.ndim != len(shape) or any(want not in (None, got) for got, want in zip(array.shape, shape, strict=True))
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise _other(field, f"shape {array.shape}", f"shape ({wanted})")
    if finite and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise _other(field, f"{array[place]} at {place}", "finite numbers")
    return array


_KINDS = {"b": "bool", "i": "integers", "u": "integers from 0", "f": "floats", "U": "text", "S": "bytes"}


def require_scalar(value: Any, field: str, *, kinds: str = "iu") -> Any:
    """Return the single number of an array of one element, as a Python number. Raises MuvlaError for anything else."""
    array = require_array(value, field, kinds=kinds, finite=True)
    if array.size != 1:
        raise _other(field, f"shape {array.shape}", "one number")
    return array.reshape(()).item()


def read_npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return the shape and dtype of every array of an `.npz` archive, without reading values.

    Raises MuvlaError for a file that is no archive of arrays, Python objects, and a header that contradicts the size.
    """
    with _archive(path) as archive:
        return {name: header for name, header in _headers(archive, path)}


def read_npz(path: Path, names: Any = None) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz` archive.

    Args:
        path: the archive.
        names: the arrays to read; None reads all.

    Raises:
        MuvlaError: as `read_npz_headers`, for damage, and for arrays that together exceed `allowance`.
    """
    size = require_file(path)
    with _archive(path) as archive:
        headers = dict(_headers(archive, path))
        chosen = [name for name in headers if names is None or name in names]
        total = sum(headers[name][1].itemsize * math.prod(headers[name][0]) for name in chosen)
        require_size((total,), 1, size, str(path))
        arrays = {}
        for name in chosen:
            with archive.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive of arrays; damage becomes a MuvlaError."""
    require_file(path)
    try:
        with disk_errors(path), zipfile.ZipFile(path) as archive:
            yield archive
    except MuvlaError:
        raise
    except (OSError, ValueError, EOFError, KeyError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_archive(path, str(error)) from None
    except (NotImplementedError, RuntimeError, SyntaxError, TypeError, OverflowError, tokenize.TokenError) as error:
        raise _no_archive(path, str(error)) from None  # an unknown compression, a password, a broken header


def _headers(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], np.dtype]]]:
    members = archive.infolist()
    if len(members) > MEMBERS:
        raise _no_archive(path, f"{len(members)} members")
    size = path.stat().st_size
    for info in members:
        field = f"{path}: {info.filename}"
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise _no_archive(path, f"version {version} of npy in {info.filename}")
            shape, _, dtype = readers[version](member, max_header_size=HEADER)
            start = member.tell()
        if dtype.hasobject:
            raise _no_archive(path, f"Python objects in {info.filename}")
        require_size(shape, dtype.itemsize, size, field)
        if dtype.itemsize * math.prod(shape) != info.file_size - start:
            raise _no_archive(path, f"{info.filename} of {info.file_size - start} bytes for shape {shape}")
        yield info.filename.removesuffix(".npy"), (shape, dtype)


def _no_archive(path: Path, got: str) -> MuvlaError:
    return MuvlaError(
        str(path),
        got=f"no whole archive of arrays ({got})",
        expected="an .npz archive of plain arrays",
        remedy="restore the file from its source, or write the file again with `numpy.savez`, without Python objects",
    )


def _other(field: str, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        field,
        got=got,
        expected=expected,
        remedy=f"write {expected} there, or leave this file out",
    )
