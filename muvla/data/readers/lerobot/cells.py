"""Columns of parquet files as arrays: numbers of a declared shape, texts, pictures.

Legend: T steps, h×w image.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from muvla.data.readers.lerobot.links import require_inside
from muvla.data.readers.source import Feature, decode_image
from muvla.errors import MuvlaError
from muvla.utils.files import read_bytes
from muvla.utils.names import inside
from muvla.utils.packages import import_package

PICTURE_BYTES = 64 * 2**20  # of an encoded picture


def read_numbers(column: Any, feature: Feature, where: str) -> np.ndarray:
    """Returns (T, …) of the declared shape and dtype; an empty cell of floats becomes NaN.

    Args:
        column: a `pyarrow.ChunkedArray` of numbers, or of lists of numbers.
        feature: the declared shape of a step, and the dtype.
        where: episode and feature, for errors.

    Raises:
        MuvlaError: other cells than numbers, another shape, or numbers that the dtype cannot hold.
    """
    types = import_package("pyarrow", "to read LeRobot's tables").types
    array, shape = column.combine_chunks(), [len(column)]
    while types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type):
        if array.null_count:
            raise _other(where, "an empty cell", f"{feature.shape} numbers in every step")
        sizes = (
            {array.type.list_size} if types.is_fixed_size_list(array.type) else set(array.value_lengths().to_pylist())
        )
        if len(sizes) > 1:
            raise _other(where, f"lists of {sorted(sizes)[:4]} numbers", f"shape {feature.shape} in every step")
        shape.append(sizes.pop() if sizes else 0)
        array = array.flatten()
    if not (types.is_integer(array.type) or types.is_floating(array.type) or types.is_boolean(array.type)):
        raise _other(where, f"cells of type {column.type}", f"numbers of shape {feature.shape}")
    floats = feature.dtype.startswith("float")
    if array.null_count and not floats:
        raise _other(where, "an empty cell", f"a number of the dtype {feature.dtype} in every step")
    if math.prod(shape[1:]) == 1 and math.prod(feature.shape) == 1:
        shape = [shape[0], *feature.shape]  # one number is written as a number or as a list of one
    if tuple(shape[1:]) != feature.shape or len(array) != math.prod(shape):
        raise _other(where, f"shape {tuple(shape[1:])}", f"shape {feature.shape}, by meta/info.json")
    values = array.to_numpy(zero_copy_only=False).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        converted = values.astype(feature.dtype)
    if not floats and not np.array_equal(converted, values):
        raise _other(where, f"numbers of type {column.type} that are no {feature.dtype}", f"the dtype {feature.dtype}")
    return converted


def read_texts(column: Any, where: str) -> np.ndarray:
    """Returns (T,) texts; an empty cell becomes an empty text. Raises MuvlaError for other cells than text."""
    types = import_package("pyarrow", "to read LeRobot's tables").types
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        raise _other(where, f"cells of type {column.type}", "text")
    try:
        return np.array([text or "" for text in column.to_pylist()], dtype=np.str_)
    except UnicodeDecodeError as error:
        raise _other(where, f"bytes that are no UTF-8 ({error.reason})", "text in UTF-8") from None


def read_pictures(column: Any, root: Path, where: str) -> np.ndarray:
    """Returns (T, h, w, 3) uint8.

    Args:
        column: a `pyarrow.ChunkedArray` of encoded pictures: bytes, or structs of `bytes` and `path`.
        root: folder of the dataset, which a path does not leave.
        where: episode and feature, for errors.

    Raises:
        MuvlaError: other cells, a path outside, a damaged picture, pictures without three colours, or of several sizes.
    """
    images = np.empty((0,))
    for step, cell in enumerate(column):
        image = decode_image(_encoded(cell.as_py(), root, f"{where}, step {step}"), f"{where}, step {step}")
        if image.ndim != 3 or image.shape[2] != 3:
            raise _other(f"{where}, step {step}", f"a picture of shape {image.shape}", "three colours, (h, w, 3)")
        if step == 0:
            images = np.empty((len(column), *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            sizes = " and ".join(f"{shape[0]}×{shape[1]}" for shape in (images.shape[1:], image.shape))
            raise _other(where, f"images of several sizes, {sizes}, the second in step {step}", "one size per episode")
        images[step] = image
    return images


def _encoded(cell: Any, root: Path, where: str) -> bytes:
    """Returns the bytes of a picture."""
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    path = cell.get("path") if isinstance(cell, dict) else None
    if not isinstance(path, str):
        raise _other(where, "no picture", "the bytes of a PNG or JPEG image, or the path of one")
    file = inside(root, path, where)
    if not file.is_file():
        raise _other(
            where, f"the path {path!r}, where no file is", "the bytes of a PNG or JPEG image, or the path of one"
        )
    try:
        return read_bytes(require_inside(root, file), PICTURE_BYTES)
    except MuvlaError as error:
        raise MuvlaError(
            f"{where}: {error.field}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from None


def _other(where: str, got: str, expected: str) -> MuvlaError:
    return MuvlaError(
        where,
        got=got,
        expected=expected,
        remedy="the rows contradict meta/info.json or are damaged: compare the file's size with its source, or leave "
        "this episode out with --episodes",
    )
