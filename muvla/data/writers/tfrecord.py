"""TFRecord framing and tf.train.Example messages; the inverse of `muvla.data.readers.tfrecord`."""

from __future__ import annotations

from typing import Any

import numpy as np

from muvla.data.readers.tfrecord import HEAD, LENGTH_DELIMITED, TAIL, masked_crc


def frame_record(data: bytes) -> bytes:
    """Returns the length, its checksum, the data, and their checksum."""
    crc = masked_crc()
    head = HEAD.pack(len(data), crc(len(data).to_bytes(8, "little")))
    return head + data + TAIL.pack(crc(data))


def encode_example(features: dict[str, Any]) -> bytes:
    """Encodes lists of bytes, and arrays of floats, integers or booleans, flattened in order."""
    entries = (_field(1, _field(1, name.encode()) + _field(2, _feature(features[name]))) for name in sorted(features))
    return _field(1, b"".join(entries))


def _feature(values: list[bytes] | np.ndarray) -> bytes:
    """Encodes a Feature: field 1 is a list of bytes, 2 of floats, 3 of integers; numbers are packed."""
    if isinstance(values, list):
        return _field(1, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        return _field(2, _field(1, values.astype("<f4").tobytes()))
    return _field(3, _field(1, b"".join(_varint(int(value)) for value in values.ravel())))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Encodes a number in base 128, lowest digit first; negative numbers as 64 bits."""
    number &= (1 << 64) - 1
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)
