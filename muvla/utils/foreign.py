"""JSON that others wrote: bounded parsing, and models of msgspec that hold it against declared types.

`parse_json` gives plain data, `decode` gives a declared type (a `msgspec.Struct` or a dataclass), `read_model` reads a
file as one. Every error is a MuvlaError that names the file and the place in its JSON.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from muvla.errors import MuvlaError
from muvla.utils.files import TEXT_BYTES, read_text

T = TypeVar("T")
DEPTH = 64  # of nested lists and objects
DIGITS = 100  # of an integer; published tokenizers write 10^30
_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`(?P<place>[^`]*)`)?", re.DOTALL)
_TYPES = re.compile(r"Expected `(?P<expected>.+?)`(?:, got `(?P<got>.+?)`)?")


def parse_json(text: str | bytes, field: str) -> Any:
    """Parse JSON. NaN and Infinity are numbers, because published files hold them; `decode` refuses these.

    Args:
        text: text, or bytes in UTF-8.
        field: file or option, for errors.

    Raises:
        MuvlaError: broken JSON, bytes that are no UTF-8, more than DEPTH nested objects, or more than DIGITS digits.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        data = json.loads(text, parse_int=_parse_int)
        if text.count("[") + text.count("{") > DEPTH:
            _require_shallow(data, field)
    except MuvlaError:
        raise
    except RecursionError:
        raise _broken(field, f"more than {DEPTH} nested lists and objects") from None
    except UnicodeDecodeError as error:
        raise _broken(field, f"bytes that are no UTF-8, at byte {error.start}") from None
    except ValueError as error:
        raise _broken(field, f"broken JSON ({error})") from None
    return data


def _parse_int(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _require_shallow(data: Any, field: str) -> None:
    level = [data]
    for _ in range(DEPTH + 1):
        parents = [node for node in level if isinstance(node, dict | list)]
        level = [child for node in parents for child in (node.values() if isinstance(node, dict) else node)]
        if not level:
            return
    raise _broken(field, f"more than {DEPTH} nested lists and objects")


def _broken(field: str, got: str) -> MuvlaError:
    return MuvlaError(
        field,
        got=got,
        expected="whole JSON",
        remedy="restore the file from its source, or write it again with the program that made it",
    )


def read_object(path: Path, limit: int = TEXT_BYTES) -> dict[str, Any]:
    """Read a file that holds one JSON object. Raises MuvlaError for anything else."""
    return require_object(parse_json(read_text(path, limit), str(path)), str(path))


def require_object(data: Any, field: str) -> dict[str, Any]:
    """Return `data` if it is a JSON object. Raises MuvlaError for anything else."""
    if not isinstance(data, dict):
        raise _mistyped(field, data, "an object `{…}`")
    return data


def read_model(path: Path, model: type[T], limit: int = TEXT_BYTES) -> T:
    """Read a file of JSON as `model`, strictly.

    Args:
        path: the file.
        model: `msgspec.Struct`, dataclass or type. Fields that the model lacks are ignored, unless it forbids them.
        limit: largest size of the file in bytes.

    Raises:
        MuvlaError: the file cannot be read, holds broken JSON, or has a field that is missing or of another type. The
            error's field is the path and the place, for example `info.json: features.action.shape[0]`.
    """
    return decode(parse_json(read_text(path, limit), str(path)), model, str(path))


def decode(data: Any, model: type[T], field: str, finite: bool = True) -> T:
    """Convert plain data to `model`, strictly. `None`, text and numbers are not converted into each other.

    Args:
        data: plain data of JSON.
        model: as in `read_model`.
        field: file or option, for errors.
        finite: refuse NaN and infinity; False where the caller reports such numbers.

    Raises:
        MuvlaError: a field is missing, has another type, breaks a bound of the model, or is NaN or infinite.
    """
    try:
        decoded = msgspec.convert(data, model)
    except msgspec.ValidationError as error:
        raise _translate(error, data, field) from None
    except RecursionError:
        raise _broken(field, f"more than {DEPTH} nested lists and objects") from None
    except UnicodeEncodeError:
        raise _broken(field, "half of a surrogate pair in a text") from None
    place = _place_of_infinite(decoded) if finite else None
    if place is not None:
        raise _mistyped(f"{field}: {place}".removesuffix(": "), "NaN or infinity there", "a finite number")
    return decoded


def _translate(error: msgspec.ValidationError, data: Any, field: str) -> MuvlaError:
    message = _MESSAGE.fullmatch(str(error))
    what, place = message["what"], (message["place"] or "$").removeprefix("$").lstrip(".")
    where = f"{field}: {place}" if place else field
    if (missing := re.fullmatch(r"Object missing required field `(.+)`", what)) is not None:
        name = f"{place}.{missing[1]}".lstrip(".")
        return _mistyped(f"{field}: {name}", None, "a value")
    if (unknown := re.fullmatch(r"Object contains unknown field `(.+)`", what)) is not None:
        return MuvlaError(
            f"{field}: {f'{place}.{unknown[1]}'.lstrip('.')}",
            got="a field that this version does not know",
            expected="the fields of this version",
            remedy="write the file again with this version",
        )
    types = _TYPES.fullmatch(what)
    value = _value_at(data, place)
    if types is None:
        return _mistyped(where, what if value is _ABSENT else value, what[0].lower() + what[1:])
    got = f"a value of type {types['got']}" if value is _ABSENT else value
    return _mistyped(where, got, f"the type {types['expected']}")


_ABSENT = object()


def _value_at(data: Any, place: str) -> Any:
    """The value at a place as msgspec writes it; `_ABSENT` for a place inside an object of free keys."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", place):
        try:
            data = data[name] if name else data[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return _ABSENT
    return data


def _mistyped(field: str, got: Any, expected: str) -> MuvlaError:
    return MuvlaError(
        field,
        got=got,
        expected=expected,
        remedy=f"write {expected} there, or write the file again with the program that made it",
    )


def _place_of_infinite(value: Any, place: str = "") -> str | None:
    """The place of the first number that is NaN or infinite; None without such a number."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    if isinstance(value, dict):
        members = ((f"{place}.{key}".lstrip("."), member) for key, member in value.items())
    elif isinstance(value, list | tuple):
        members = ((f"{place}[{index}]", member) for index, member in enumerate(value))
    elif hasattr(value, "__struct_fields__") or hasattr(value, "__dataclass_fields__"):
        names = getattr(value, "__struct_fields__", None) or tuple(value.__dataclass_fields__)
        members = ((f"{place}.{name}".lstrip("."), getattr(value, name)) for name in names)
    else:
        return None
    return next((found_at for at, member in members if (found_at := _place_of_infinite(member, at)) is not None), None)
