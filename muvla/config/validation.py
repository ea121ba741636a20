"""The check that every configuration field goes through."""

from __future__ import annotations

from typing import Any

from muvla.errors import MuvlaError


def require(ok: bool, field_name: str, got: Any, expected: str, remedy: str) -> None:
    if not ok:
        raise MuvlaError(field_name, got=got, expected=expected, remedy=remedy)


def is_whole(value: Any) -> bool:
    """True for an integer. `True` and `1.0` are none."""
    return isinstance(value, int) and not isinstance(value, bool)
