"""Options of a launcher: a frozen dataclass of its fields, filled from `name=value` texts and a TOML file."""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from muvla.errors import MuvlaError, unknown_name
from muvla.utils.files import read_text

OPTION = "--option"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of a launcher without options."""


def read_texts(pairs: list[str], file: Path | None = None, **named: Any) -> dict[str, Any]:
    """Option name → value, of `name=value` texts and of a TOML file; a text counts more than the file.

    Args:
        pairs: texts such as `partition=gpu`.
        file: a TOML file of top-level keys.
        named: options that the command line has an option of its own for; None and False leave an option out.

    Raises:
        MuvlaError: a text without `=`, a name given twice, or a file that is no TOML.
    """
    given: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise MuvlaError(OPTION, got=pair, expected="name=value", remedy=f"for example {OPTION} partition=gpu")
        if name in given:
            raise MuvlaError(
                OPTION, got=f"{name} given twice", expected="one value per name", remedy="keep one of both"
            )
        given[name] = text
    stated = {name: value for name, value in named.items() if value is not None and value is not False}
    for name in stated.keys() & given.keys():
        flag = f"--{name.replace('_', '-')}"
        raise MuvlaError(OPTION, got=f"{name} given twice", expected="one value per name", remedy=f"keep {flag} alone")
    return _read_file(file) | given | stated


def parse_options(options: type[T], texts: Mapping[str, Any], launcher: str) -> T:
    """The options of a launcher.

    Args:
        options: the dataclass.
        texts: name → value, or its text.
        launcher: name of the launcher, for errors.

    Raises:
        MuvlaError: an unknown name, or a value of another type.
    """
    names = [field.name for field in dataclasses.fields(options)]
    for name, value in texts.items():
        if name in names:
            continue
        if not names:
            raise MuvlaError(
                f"{OPTION} {name}",
                got=value,
                expected=f"no option, because the launcher {launcher} has none",
                remedy="leave the option out, or choose another --launcher",
            )
        raise unknown_name(f"{OPTION} of the launcher {launcher}", name, names)
    hints = get_type_hints(options, include_extras=True)
    return options(**{name: _convert(name, value, hints[name]) for name, value in texts.items()})


def _convert(name: str, value: Any, hint: Any) -> Any:
    if hint == tuple[str, ...] and isinstance(value, str):
        value = shlex.split(value)
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError as error:
        raise MuvlaError(
            f"{OPTION} {name}",
            got=value,
            expected=f"another value: {str(error).lower()}",
            remedy="docs/cluster.md has an example of every option",
        ) from None


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise MuvlaError(
            str(file),
            got=f"no TOML ({error})",
            expected="lines such as partition = 'gpu'",
            remedy="put texts in quotes",
        ) from None
