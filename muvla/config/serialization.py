"""Frozen dataclasses to and from plain data: strict reading, canonical JSON, content hashes, differences.

A configuration's identity is the hash of its canonical JSON, so nothing here may depend on field order, on the process
or on how a number was written (1 and 1.0 are one float).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from functools import lru_cache
from typing import Any, TypeVar

from muvla.errors import MuvlaError
from muvla.utils.io import dump_canonical, hash_json

T = TypeVar("T")
# Metadata of a field that was added when identities were already in use: at its default, a configuration means what it
# meant before, and keeps its identity. Such a default must never be changed.
ADDED_LATER = {"later": True}
_type_hints = lru_cache(typing.get_type_hints)  # they are written as text, and a plan reads thousands of cells


def to_dict(config: Any) -> Any:
    """Nested plain data (dict, list, str, number, bool, None) of a dataclass."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_dict(item) for item in config]
    return config


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass `cls` read from plain data, strictly.

    Raises MuvlaError for an unknown field (with the nearest known names) and for a value of another type.
    """
    if not isinstance(data, dict):
        raise MuvlaError(where or cls.__name__, got=data, expected="a table of fields", remedy="write field: value")
    hints = _type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for name in data:
        if name not in known:
            raise _unknown(f"{where}{name}", name, [f"{where}{k}" for k in known])
    values = {name: _convert(hints[name], value, f"{where}{name}") for name, value in data.items()}
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise MuvlaError(f"{where}{missing[0]}", got=None, expected="a value", remedy="set the field")
    return cls(**values)


def replace(config: T, changes: dict[str, Any]) -> T:
    """A copy with dotted fields changed, `replace(cell, {"memory.m": 8})`; unknown fields raise MuvlaError."""
    data = to_dict(config)
    flat = flatten(config)
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = data
        for name in [*parents, leaf]:
            if not isinstance(node, dict) or name not in node:
                raise _unknown(path, path, list(flat))
            parent, node = node, node[name]
        parent[leaf] = to_dict(value)
    return from_dict(type(config), data)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted leaf fields of a dataclass; a tuple is one leaf."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{f.name}.")
        else:
            flat[f"{prefix}{f.name}"] = to_dict(value)
    return flat


def difference(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Every dotted field in which two configurations differ: {field: (in a, in b)}."""
    flat_a, flat_b = flatten(a), flatten(b)
    return {
        name: (flat_a.get(name), flat_b.get(name))
        for name in sorted(flat_a.keys() | flat_b.keys())
        if flat_a.get(name) != flat_b.get(name) or (name in flat_a) != (name in flat_b)
    }


def identity(config: Any) -> Any:
    """Plain data to be hashed: `to_dict` without the fields that were added later and stand at their default."""
    if isinstance(config, tuple | list):
        return [identity(item) for item in config]
    if not dataclasses.is_dataclass(config):
        return to_dict(config)
    return {
        f.name: identity(getattr(config, f.name))
        for f in dataclasses.fields(config)
        if not (f.metadata.get("later") and getattr(config, f.name) == _default(f))
    }


def _default(f: dataclasses.Field) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def canonical_json(data: Any) -> str:
    return dump_canonical(to_dict(data))


def content_hash(data: Any, length: int = 12) -> str:
    """First `length` hexadecimal digits of the SHA-256 of the canonical JSON of a configuration's `identity`."""
    return hash_json(identity(data), length)


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """`["memory.m=8", "optimizer.clip=null"]` → values read as JSON, else as text."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise MuvlaError("--set", got=pair, expected="field=value", remedy="for instance --set memory.m=8")
        try:
            changes[name] = json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    return changes


def _unknown(field: str, name: str, known: list[str]) -> MuvlaError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    return MuvlaError(
        field, got="an unknown field", expected=f"one of {', '.join(near or known)}", remedy="correct the name"
    )


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        (inner,) = [o for o in options if o is not type(None)]
        return _convert(inner, value, where)
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise _mistyped(where, value, "one of " + ", ".join(map(repr, typing.get_args(hint))))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _mistyped(where, value, "a list")
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_convert(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(inner):
            raise _mistyped(where, value, f"{len(inner)} values")
        return tuple(_convert(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(inner, value, strict=True)))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, f"{where}.")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise _mistyped(where, value, {"int": "a whole number", "float": "a number"}.get(hint.__name__, hint.__name__))


def _mistyped(where: str, value: Any, expected: str) -> MuvlaError:
    return MuvlaError(where, got=value, expected=expected, remedy="correct the value")
