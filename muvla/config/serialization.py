"""Frozen dataclasses to and from plain data: strict reading, canonical JSON, content hashes, differences.

A configuration's identity is the hash of its canonical JSON. Nothing here may therefore depend on field order, on the
process, or on how a number was written (1 and 1.0 are the same float).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import re
import types
import typing
from functools import lru_cache
from typing import Any, TypeVar

from muvla.errors import MuvlaError
from muvla.utils.io import dump_canonical, hash_json

T = TypeVar("T")
# Metadata of a field that was added when identities were already in use. At its default, the field stays out of the
# identity, so that train ids stay. Such a default must never change.
ADDED_LATER = {"later": True}
LARGEST_INTEGER, LARGEST_FLOAT = 2**53, 1e300
# A plan reads thousands of cells: annotations are text, and `dataclasses.fields` filters on every call.
_type_hints = lru_cache(typing.get_type_hints)
_fields = lru_cache(dataclasses.fields)
_PLAIN = (str, int, float, bool, type(None))
_READ = "_read"  # attribute of a configuration that `from_dict` made: the values have the types of their fields


def to_dict(config: Any) -> Any:
    """Nested plain data (dict, list, str, number, bool, None) of a dataclass."""
    if type(config) in _PLAIN:
        return config
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in _fields(type(config))}
    if isinstance(config, tuple | list):
        return [to_dict(item) for item in config]
    return config


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass `cls` read from plain data, strictly.

    A class with a class method `class_for(data)` is read as the subclass that this method names.

    Args:
        cls: dataclass to read.
        data: nested plain data.
        where: dotted prefix of the fields, for errors.

    Raises:
        MuvlaError: for an unknown field (with the nearest names) and for a value of another type.
    """
    if not isinstance(data, dict):
        raise MuvlaError(
            where.removesuffix(".") or cls.__name__, got=data, expected="a table of fields", remedy="write field: value"
        )
    if hasattr(cls, "class_for"):
        cls = cls.class_for(data)
    hints, fields = _type_hints(cls), _fields(cls)
    names = [f.name for f in fields]
    for name in data:
        if name not in names:
            raise _unknown_field(f"{where}{name}", [f"{where}{each}" for each in names])
    values = {name: _convert(hints[name], value, f"{where}{name}") for name, value in data.items()}
    missing = [
        f.name
        for f in fields
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise MuvlaError(f"{where}{missing[0]}", got=None, expected="a value", remedy="set the field")
    return _mark(cls(**values))


def replace(config: T, changes: dict[str, Any]) -> T:
    """A copy with dotted fields changed: `replace(cell, {"memory.m": 8})`.

    A change of a field that chooses a class (`memory.kind`) is made first. Fields that both classes have keep their
    values; the other fields of the new class have their defaults.

    Raises:
        MuvlaError: for an unknown field.
    """
    if not getattr(config, _READ, False):
        return _replace_anew(config, changes)
    try:
        return _replace_parts(config, changes)
    except MuvlaError:
        return _replace_anew(config, changes)  # its errors name the whole path


def _replace_parts(config: T, changes: dict[str, Any]) -> T:
    """The copy of a configuration that `from_dict` made; only the parts that change are made anew."""
    hints = _type_hints(type(config))
    values: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if name not in hints or (not rest and _choice(config, path) is not None):
            return _replace_anew(config, changes)  # the error, or a choice of another class
        if _is_there(config, path, value):
            continue
        if rest:
            parts.setdefault(name, {})[rest] = value
        else:
            values[name] = _convert(hints[name], to_dict(value), f"{name}")
    if parts.keys() & values.keys():  # their order matters
        return _replace_anew(config, changes)
    for name, inner in parts.items():
        part = getattr(config, name)
        if not dataclasses.is_dataclass(part):
            return _replace_anew(config, changes)
        values[name] = replace(part, inner)
    return _mark(dataclasses.replace(config, **values)) if values else config


def _is_there(config: Any, path: str, value: Any) -> bool:
    """True if the field has this value already, in the same type."""
    for name in path.split("."):
        if not hasattr(config, name):
            return False
        config = getattr(config, name)
    return config is value or (type(value) in _PLAIN and type(config) is type(value) and config == value)


def _mark(config: T) -> T:
    """Notes that every value of a configuration has its field's type."""
    config.__dict__[_READ] = True
    return config


def _replace_anew(config: T, changes: dict[str, Any]) -> T:
    """The copy, made from plain data."""
    data = to_dict(config)
    for path, value in sorted(changes.items(), key=lambda change: _choice(config, change[0]) is None):
        *parents, leaf = path.split(".")
        node = data
        for name in [*parents, leaf]:
            if not isinstance(node, dict) or name not in node:
                raise _unknown_field(path, _paths(data))
            parent, node = node, node[name]
        parent[leaf] = to_dict(value)
        if (chooser := _choice(config, path)) is not None:
            _rechoose(chooser, parent)
    return from_dict(type(config), data)


def _choice(config: Any, path: str) -> Any:
    """The part of `config` whose class the field at `path` chooses; None for any other field."""
    *parents, leaf = path.split(".")
    for name in parents:
        config = getattr(config, name, None)
    return config if leaf == "kind" and hasattr(config, "class_for") else None


def _rechoose(chooser: Any, data: dict[str, Any]) -> None:
    """Turns the plain data of `chooser`, in place, into data of the class that they now name."""
    defaults = {f.name: to_dict(_default(f)) for f in dataclasses.fields(chooser.class_for(data))}
    kept = {name: value for name, value in data.items() if name in defaults}
    data.clear()
    data.update(defaults | kept)


def _paths(data: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the leaves of nested plain data."""
    paths = []
    for name, value in data.items():
        paths += _paths(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return paths


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted leaf fields of a dataclass; a tuple is one leaf."""
    flat: dict[str, Any] = {}
    for f in _fields(type(config)):
        value = getattr(config, f.name)
        if type(value) in _PLAIN:
            flat[prefix + f.name] = value
        elif dataclasses.is_dataclass(value):
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
    """Plain data to be hashed: `to_dict` without later fields (`ADDED_LATER`) at their defaults."""
    if type(config) in _PLAIN:
        return config
    if isinstance(config, tuple | list):
        return [identity(item) for item in config]
    if not dataclasses.is_dataclass(config):
        return to_dict(config)
    return {
        f.name: identity(getattr(config, f.name))
        for f in _fields(type(config))
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
        if name in changes:
            raise MuvlaError("--set", got=f"{name} twice", expected="one value per field", remedy="keep one of both")
        try:
            changes[name] = json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    return changes


def _unknown_field(path: str, names: list[str]) -> MuvlaError:
    near = difflib.get_close_matches(path, names, n=3, cutoff=0.3) or names
    return MuvlaError(
        path, got="an unknown field", expected=f"one of {', '.join(near)}", remedy=f"use {near[0]!r}, if it is meant"
    )


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert_to_any([o for o in options if o is not type(None)], value, where)
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
        if abs(value) <= LARGEST_FLOAT:  # False for NaN
            return float(value)
        raise _mistyped(re.sub(r"\[\d+\]$", "", where), value, "finite numbers")
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) <= LARGEST_INTEGER:
            return value
        raise _mistyped(where, value, f"a whole number of at most {LARGEST_INTEGER}")
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise _mistyped(where, value, {"int": "a whole number", "float": "a number"}.get(hint.__name__, hint.__name__))


def _convert_to_any(hints: list[Any], value: Any, where: str) -> Any:
    """The value as the first of these types that it fits; a list is held against the list types alone."""
    is_list = isinstance(value, list | tuple)
    fitting = [hint for hint in hints if (typing.get_origin(hint) is tuple) == is_list] or hints
    for hint in fitting[:-1]:
        with contextlib.suppress(MuvlaError):
            return _convert(hint, value, where)
    return _convert(fitting[-1], value, where)


def _mistyped(where: str, value: Any, expected: str) -> MuvlaError:
    return MuvlaError(where, got=value, expected=expected, remedy=f"give {where} such a value")
