"""TFRecord files and the tf.train.Example messages in them, without TensorFlow and without protobuf.

A record is: length (8 bytes, little endian), masked CRC32C of these 8 bytes, the data, masked CRC32C of the data. An
Example maps each name to a list of bytes, floats or integers (tensorflow/core/example/feature.proto).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from muvla.errors import MuvlaError

HEAD, TAIL = struct.Struct("<QI"), struct.Struct("<I")
# Wire types of protobuf's encoding.
VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5

Values = list[bytes] | np.ndarray  # float32 or int64


def read_records(file: Path, skip: int = 0) -> Iterator[bytes]:
    """Yields the data of every record after the first `skip`, each checked against its CRC.

    Raises MuvlaError, with the file and the record's number from 0, for a cut or changed record.
    """
    crc = masked_crc()
    size = file.stat().st_size
    with file.open("rb") as handle:
        number = 0
        while head := handle.read(HEAD.size):
            where = f"{file}: record {number} (from 0)"
            if len(head) < HEAD.size:
                raise _broken(where, f"{len(head)} bytes in place of a length")
            length, crc_of_length = HEAD.unpack(head)
            if crc(head[:8]) != crc_of_length:
                raise _broken(where, "a length with a wrong CRC32C")
            if length > size - handle.tell() - TAIL.size:
                raise _broken(where, f"the end of the file within the record's {length} bytes")
            if number < skip:
                handle.seek(length + TAIL.size, os.SEEK_CUR)
            else:
                data = handle.read(length)
                if crc(data) != TAIL.unpack(handle.read(TAIL.size))[0]:
                    raise _broken(where, "data with a wrong CRC32C")
                yield data
            number += 1


def masked_crc() -> Callable[[bytes], int]:
    """Returns CRC32C as TFRecord stores it: rotated by 15 bits, plus a constant.

    Raises MuvlaError without the package crc32c: pure Python would take a hundred times as long as all other work.
    """
    try:
        from crc32c import crc32c
    except ImportError as error:
        raise MuvlaError(
            "crc32c",
            got=f"no such package ({error})",
            expected="the package, to check every record of a TFRecord file",
            remedy="run `pip install crc32c`, which the extra `data` contains",
        ) from None

    def masked(data: bytes) -> int:
        value = crc32c(data)
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    return masked


def parse_example(data: bytes, where: str) -> dict[str, Values]:
    """Returns the lists of an Example by name; an untyped empty list becomes an empty list of bytes.

    Raises MuvlaError, with `where`, for bytes that are no Example.
    """
    try:
        return dict(_entries(memoryview(data)))
    except (IndexError, ValueError, struct.error) as error:
        raise MuvlaError(
            where,
            got=f"no tf.train.Example ({error})",
            expected="one tf.train.Example per record",
            remedy="write the dataset with tensorflow-datasets as TFRecord",
        ) from None


def _entries(example: memoryview) -> Iterator[tuple[str, Values]]:
    for features in _submessages(example, 1):
        for entry in _submessages(features, 1):
            (key,), lists = _submessages(entry, 1), _submessages(entry, 2)
            yield bytes(key).decode(), _values(lists[0]) if lists else []


def _values(feature: memoryview) -> Values:
    """Decodes a Feature: field 1 is a list of bytes, 2 of floats, 3 of integers; numbers may be packed or separate."""
    for field, content in _fields(feature):
        parts = [part for number, part in _fields(content) if number == 1]
        if field == 1:
            return [bytes(part) for part in parts]
        whole = b"".join(parts)
        if field == 2:
            return np.frombuffer(whole, "<f4")
        if field == 3:
            return _varints(whole)
    return []


def _varints(packed: bytes) -> np.ndarray:
    """Returns (n,) int64 of n numbers in base 128, lowest digit first; only the last byte of a number is below 128."""
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 128)
    if len(raw) == 0:
        return np.empty(0, np.int64)
    if len(ends) == 0 or ends[-1] != len(raw) - 1:
        raise ValueError("an integer is cut")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(raw)) - np.repeat(starts, ends - starts + 1)
    digits = (raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(digits, starts).view(np.int64)


def _submessages(message: memoryview, number: int) -> list[memoryview]:
    return [content for field, content in _fields(message) if field == number]


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yields (field number, its bytes) in order; an integer's bytes are its varint."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == LENGTH_DELIMITED:
            length, at = _varint(message, at)
        elif wire_type == VARINT:
            length = _varint(message, at)[1] - at
        elif wire_type in (FOUR_BYTES, EIGHT_BYTES):
            length = 4 if wire_type == FOUR_BYTES else 8
        else:
            raise ValueError(f"wire type {wire_type}")
        if at + length > len(message):
            raise ValueError("a field is cut")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the number that begins at `at`, and the index after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _broken(where: str, got: str) -> MuvlaError:
    return MuvlaError(
        where, got=got, expected="a whole record; the file was cut or changed", remedy="copy or download the file again"
    )
