"""Messages of msgpack with arrays, as vla-eval and openpi write them. No codec here can run code of a message.

| wire | array | image |
|---|---|---|
| vla-eval | `{"__ndarray__": true, "data", "dtype", "shape"}` | `{"__image__": true, "format", "data"}`, also raw |
| openpi | `{b"__ndarray__": true, b"data", b"dtype", b"shape"}` | an array |

A scalar of NumPy is `{b"__npgeneric__": true, b"data", b"dtype"}` on openpi's wire.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from muvla.serving.pictures import decode_picture
from muvla.serving.refusal import Refused

Dialect = Literal["vla-eval", "openpi"]
DTYPES = "biuf"  # kinds of bool, whole and floating-point numbers; objects and structures are refused
DEPTH = 16  # nested lists and maps
_DECODER, _ENCODER = msgspec.msgpack.Decoder(), msgspec.msgpack.Encoder()


def decode_message(message: bytes, dialect: Dialect) -> Any:
    """Return the content of a message, with NumPy arrays. Raises Refused for anything that is not whole and safe."""
    try:
        content = _DECODER.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, MemoryError) as error:
        raise _refused("message", f"{len(message)} bytes that are no msgpack ({error})", "one whole map") from None
    return _decode(content, _mark(dialect), 0)


def encode_message(content: Any, dialect: Dialect) -> bytes:
    """Return the bytes of a message. Arrays may lie anywhere in `content`."""
    return _ENCODER.encode(_encode(content, _mark(dialect)))


def _mark(dialect: Dialect) -> type:
    return str if dialect == "vla-eval" else bytes


def _key(name: str, mark: type) -> str | bytes:
    return name if mark is str else name.encode()


def _decode(value: Any, mark: type, depth: int) -> Any:
    if depth > DEPTH:
        raise _refused("message", f"more than {DEPTH} nested lists and maps", "a flat observation")
    if isinstance(value, dict):
        if _key("__ndarray__", mark) in value:
            return _array(value, mark)
        if mark is bytes and b"__npgeneric__" in value:
            return _scalar(value)
        if mark is str and "__image__" in value:
            return _picture(value)
        return {name: _decode(item, mark, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_decode(item, mark, depth + 1) for item in value]
    if isinstance(value, msgspec.msgpack.Ext):
        raise _refused("message", f"an extension of type {value.code}", "maps, lists, texts, numbers and bytes")
    return value


def _array(value: Mapping, mark: type) -> np.ndarray:
    data, shape = value.get(_key("data", mark)), value.get(_key("shape", mark))
    dtype = _dtype(value.get(_key("dtype", mark)))
    whole = isinstance(shape, list | tuple) and all(type(n) is int and 0 <= n < 2**31 for n in shape)
    if not whole or len(shape) > 8:
        raise _refused("shape", shape, "a list of at most 8 whole numbers")
    size = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != size:
        got = f"{len(data)} bytes" if isinstance(data, bytes) else data
        raise _refused("data", got, f"{size} bytes for shape {list(shape)} of {dtype}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _scalar(value: Mapping) -> Any:
    dtype, number = _dtype(value.get(b"dtype")), value.get(b"data")
    if not isinstance(number, int | float):
        raise _refused("data", number, f"a number of {dtype}")
    try:
        return dtype.type(number)
    except (OverflowError, ValueError):
        raise _refused("data", number, f"a number of {dtype}") from None


def _dtype(name: Any) -> np.dtype:
    try:
        dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    except (TypeError, ValueError, SyntaxError, KeyError, OverflowError):
        dtype = None
    if name is None or not isinstance(name, str | bytes) or dtype is None or dtype.kind not in DTYPES or dtype.shape:
        raise _refused("dtype", name, "a dtype of whole or floating-point numbers, such as <f4 or |u1")
    return dtype


def _picture(value: Mapping) -> np.ndarray:
    if value.get("format") == "raw":
        return _array(value, str)
    if value.get("format") not in ("png", "jpeg"):
        raise _refused("format", value.get("format"), "png, jpeg or raw")
    if not isinstance(value.get("data"), bytes):
        raise _refused("data", value.get("data"), "the bytes of a picture")
    return decode_picture(value["data"], "data")


def _encode(value: Any, mark: type) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in DTYPES:
            raise _refused("dtype", str(value.dtype), "whole or floating-point numbers")
        parts = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
        return {_key("__ndarray__", mark): True} | {_key(name, mark): part for name, part in parts.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _encode(item, mark) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item, mark) for item in value]
    return value


def _refused(field: str, got: Any, expected: str) -> Refused:
    return Refused(field, got=got, expected=expected, remedy="send the message as docs/serving.md describes this wire")
