"""The judgement about each field of a released directory's JSON files: used, irrelevant or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["used", "irrelevant", "refused"]
SHOWN = 80  # characters of a value in a line


@dataclass(frozen=True)
class FieldStatus:
    """One field of one file, or a whole file where `field` is empty."""

    file: str
    field: str
    status: Status
    note: str = ""  # reason of `irrelevant`; value and expectation of `refused`

    def line(self) -> str:
        return f"{self.file}: {self.field} {self.note}" if self.field else f"{self.file}: {self.note}"


@dataclass(frozen=True)
class Used:
    """Rule of a field that decides the computation: the policy honours the values that `fits` accepts."""

    fits: Callable[[Any], bool]
    expected: str


@dataclass(frozen=True)
class Irrelevant:
    """Rule of a field that no action depends on."""

    reason: str


Rules = Mapping[str, Used | Irrelevant]
NO_SUCH_FIELD = "no field of this name, because the published code reads none"


def judge(file: str, data: Mapping[str, Any], rules: Rules, prefix: str = "") -> Iterator[FieldStatus]:
    """Yields the status of every field in `data`; a field without a rule is refused.

    Args:
        file: name of the JSON file.
        data: the file's object, or an object inside the file.
        rules: by field.
        prefix: of the fields' names, for an object inside the file.
    """
    for name, value in data.items():
        rule = rules.get(name)
        field = f"{prefix}{name}"
        if isinstance(rule, Irrelevant):
            yield FieldStatus(file, field, "irrelevant", rule.reason)
        elif rule is not None and rule.fits(value):
            yield FieldStatus(file, field, "used")
        else:
            expected = NO_SUCH_FIELD if rule is None else rule.expected
            yield FieldStatus(file, field, "refused", f"is {shorten(value)} instead of {expected}")


def shorten(value: Any) -> str:
    """Returns the value as text, cut to a line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def equal_to(*accepted: Any) -> Used:
    """Accepts exactly these values; `True` is not 1."""
    fits = lambda value: any(type(value) is type(other) and value == other for other in accepted)  # noqa: E731
    return Used(fits, " or ".join(map(repr, accepted)))


def number_in(low: float, high: float) -> Used:
    """Accepts a finite number from `low` to `high`."""
    return Used(lambda value: is_number(value, low, high), f"a number from {low:g} to {high:g}")


def is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high
