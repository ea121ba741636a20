"""The errors that a user sees: each names a field, the value, the expectation and a remedy."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

LISTED = 12  # names that an error lists in full
SHOWN = 600  # characters of a value that an error shows


class MuvlaError(ValueError):
    """Bad input or an unusable environment. The command line prints the error on one line and exits with status 2.

    Args:
        field: option, field or file that is wrong.
        got: the wrong value, or a description of several words. A value is printed with `repr`, a description without
            quotation marks.
        expected: the values that are accepted.
        remedy: what the user can do.
    """

    reported_elsewhere = False  # True if another process of the same training reports this error

    def __init__(self, field: str, *, got: Any, expected: str, remedy: str):
        self.field, self.got, self.expected, self.remedy = field, got, expected, remedy
        super().__init__(f"{field}: got {self._shown(got)}, expected {expected}. Remedy: {remedy}")

    @staticmethod
    def _shown(got: Any) -> str:
        """A text of several words is a description; everything else is a value."""
        return got if isinstance(got, str) and len(got.split()) > 1 else show(got)

    def __reduce__(self):  # keyword-only arguments do not survive the default pickling between processes
        return (_rebuild, (type(self), self.field, self.got, self.expected, self.remedy))


class UnknownName(MuvlaError):
    """A name that is not in a list of known names. Build it with `unknown_name`."""

    @staticmethod
    def _shown(got: Any) -> str:
        return show(got)


class NotAMeasurement(MuvlaError):
    """A run-time invariant broke (a leak through the guard, frozen memory, NaN). The results must not be used."""


class Busy(MuvlaError):
    """Another process holds a lock. The error marks no run as failed."""


class DiskError(MuvlaError):
    """The disk is full or not writable, or a lock is lost. The error marks no run as failed; the command continues."""


class RankLost(MuvlaError):
    """Another process of the same training is gone. The error marks no run as failed; the same command continues."""


class Interrupted(Exception):
    """A stop was asked for; everything computed so far is on disk."""

    reported_elsewhere = False  # True if another process of the same training reports it


@contextlib.contextmanager
def located(place: object) -> Iterator[None]:
    """Add `place`, a file or a file and a field, to the field of an error that names only a field of the content."""
    try:
        yield
    except MuvlaError as error:
        if str(place) in error.field:
            raise
        raise _rebuild(type(error), f"{place}: {error.field}", error.got, error.expected, error.remedy) from error


def show(value: Any) -> str:
    """`repr` of any value, shortened. Values of foreign files may be long, deeply nested, or without a `repr`."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep nesting
        return f"a value of type {type(value).__name__} that is too large to print"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _rebuild(cls, field, got, expected, remedy):
    return cls(field, got=got, expected=expected, remedy=remedy)


def nearest(name: object, names: Iterable[str]) -> list[str]:
    """At most three of `names` that resemble `name`, the nearest first."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    wanted = str(name).lower()
    near = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.5)
    near += [candidate for candidate in sorted(by_lower) if len(wanted) > 1 and candidate.startswith(wanted)]
    return [by_lower[candidate] for candidate in dict.fromkeys(near)][:3]


def unknown_name(field: str, got: object, names: Iterable[str], listed_by: str = "") -> UnknownName:
    """The error for a name that is not in `names`. It suggests the nearest match.

    Args:
        field: option or field that holds the name.
        got: the name that the user gave.
        names: every accepted name.
        listed_by: command that lists them all, for example `muvla ls tasks`; for long lists.
    """
    names = sorted(set(names))
    near = nearest(got, names)
    lists_all = f"`{listed_by}` lists all" if listed_by else ""
    shown = names if len(names) <= LISTED else near
    remedies = [f"use {near[0]!r}"] if near else []
    if lists_all:
        remedies.append(lists_all)
    remedy = "; ".join(remedies) or "use one of these names"
    if not names:
        expected, remedy = "a name, but none exists", lists_all or "leave it out"
    elif any("," in name for name in shown):  # one name a line, because a comma may be part of a name
        expected, remedy = "a name of the list below", remedy + "".join(f"\n  {name}" for name in shown)
    elif shown:
        expected = f"one of {', '.join(shown)}"
    else:
        expected = f"one of {len(names)} names" if lists_all else f"one of {', '.join(names)}"
    return UnknownName(field, got=got, expected=expected, remedy=remedy)
