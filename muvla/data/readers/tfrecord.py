"""TFRecord files and the tf.train.Example messages in them, without TensorFlow and without protobuf.

A record is: length (8 bytes, little endian), masked CRC32C of these 8 bytes, the data, masked CRC32C of the data. An
Example maps each name to a list of bytes, floats or integers (tensorflow/core/example/feature.proto).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import numpy as np

from muvla.errors import MuvlaError

HEAD, TAIL = struct.Struct("<QI"), struct.Struct("<I")
# Wire types of protobuf's encoding.
VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5

LONGEST_VARINT = 10  # bytes of a number of 64 bits

Values = list[bytes] | np.ndarray  # float32 or int64


def read_records(file: Path, wanted: Container[int] | None = None) -> Iterator[bytes | None]:
    """Yields the data of every record, checked against its CRC, and None for a record that is not in `wanted`.

    The length of every record is checked against its CRC and the file's size, before memory is allocated. Raises
    MuvlaError, with the file and the record's number from 0, for a cut or changed record.
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
            if wanted is not None and number not in wanted:
                handle.seek(length + TAIL.size, os.SEEK_CUR)
                yield None
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

    The time is linear in the number of bytes. Raises MuvlaError, with `where`, for bytes that are no Example: cut
    fields, another wire type than the list's, an integer of more than 64 bits, or a name that occurs twice.
    """
    values: dict[str, Values] = {}
    try:
        for name, stored in _entries(memoryview(data)):
            if name in values:
                raise ValueError(f"two features {name!r}")
            values[name] = stored
    except ValueError as error:
        raise MuvlaError(
            where,
            got=f"no tf.train.Example ({error})",
            expected="one tf.train.Example per record",
            remedy="write the dataset with tensorflow-datasets as TFRecord",
        ) from None
    return values


def _entries(example: memoryview) -> Iterator[tuple[str, Values]]:
    for features in _submessages(example, 1):
        for entry in _submessages(features, 1):
            keys, lists = _submessages(entry, 1), _submessages(entry, 2)
            if len(keys) != 1 or len(lists) > 1:
                raise ValueError("an entry without one name and one list")
            yield bytes(keys[0]).decode(), _values(lists[0]) if lists else []


def _values(feature: memoryview) -> Values:
    """Decodes a Feature: field 1 is a list of bytes, 2 of floats, 3 of integers; numbers may be packed or separate."""
    lists = list(_fields(feature))
    if not lists:
        return []
    if len(lists) > 1:
        raise ValueError("a feature of several lists")
    field, wire_type, content = lists[0]
    if field not in (1, 2, 3) or wire_type != LENGTH_DELIMITED:
        raise ValueError(f"a feature with field {field} of wire type {wire_type}")
    elements = [(wire, part) for number, wire, part in _fields(content) if number == 1]
    separate = {1: LENGTH_DELIMITED, 2: FOUR_BYTES, 3: VARINT}[field]
    wrong = [wire for wire, _ in elements if wire not in (separate, LENGTH_DELIMITED)]
    if wrong:
        raise ValueError(f"list {field} with an element of wire type {wrong[0]}")
    if field == 1:
        return [bytes(part) for _, part in elements]
    whole = b"".join(part for _, part in elements)
    if field == 3:
        return _varints(whole)
    if any(len(part) % 4 for _, part in elements):
        raise ValueError("a float is cut")
    return np.frombuffer(whole, "<f4")


def _varints(packed: bytes) -> np.ndarray:
    """Returns (n,) int64 of n numbers in base 128, lowest digit first; only the last byte of a number is below 128."""
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 128)
    if len(raw) == 0:
        return np.empty(0, np.int64)
    if len(ends) == 0 or ends[-1] != len(raw) - 1:
        raise ValueError("an integer is cut")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > LONGEST_VARINT or (raw[ends[lengths == LONGEST_VARINT]] > 1).any():
        raise ValueError("an integer of more than 64 bits")
    place = np.arange(len(raw)) - np.repeat(starts, lengths)
    digits = (raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(digits, starts).view(np.int64)


def _submessages(message: memoryview, number: int) -> list[memoryview]:
    fields = [(wire_type, content) for field, wire_type, content in _fields(message) if field == number]
    if any(wire_type != LENGTH_DELIMITED for wire_type, _ in fields):
        raise ValueError(f"field {number} of another wire type than a message")
    return [content for _, content in fields]


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yields (field number, wire type, its bytes) in order; an integer's bytes are its varint."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"field number {number}")
        if wire_type == LENGTH_DELIMITED:
            length, at = _varint(message, at)
        elif wire_type == VARINT:
            length = _varint(message, at)[1] - at
        elif wire_type in (FOUR_BYTES, EIGHT_BYTES):
            length = 4 if wire_type == FOUR_BYTES else 8
        else:
            raise ValueError(f"wire type {wire_type}")
        if length > len(message) - at:
            raise ValueError("a field is cut")
        yield number, wire_type, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the number that begins at `at`, and the index after it."""
    value = 0
    for place, byte in enumerate(message[at : at + LONGEST_VARINT]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            if value >= 2**64:
                break
            return value, at + place + 1
    cut = at + LONGEST_VARINT > len(message)
    raise ValueError("an integer is cut" if cut else "an integer of more than 64 bits")


def _broken(where: str, got: str) -> MuvlaError:
    return MuvlaError(
        where,
        got=got,
        expected="a whole record; the file was cut or changed",
        remedy="compare the file's size and checksum with the source's, and copy the file if they differ",
    )
