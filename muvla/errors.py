"""The one error that a user sees: which field, what was got, what was expected, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class MuvlaError(ValueError):
    """Bad input or a bad environment. The command line prints it as it is, without a traceback, and exits with 2."""

    reported_elsewhere = False  # another process of the same training reports this error

    def __init__(self, field: str, *, got: Any, expected: str, remedy: str):
        self.field, self.got, self.expected, self.remedy = field, got, expected, remedy
        super().__init__(f"{field}: got {got!r}, expected {expected}. Remedy: {remedy}")

    def __reduce__(self):  # keyword-only arguments do not survive the default pickling between processes
        return (_rebuild, (type(self), self.field, self.got, self.expected, self.remedy))


class NotAMeasurement(MuvlaError):
    """A run-time invariant broke (leaking guard, frozen memory, NaN): what was computed must not become a number."""


class DiskError(MuvlaError):
    """The disk is full or not writable: nobody's failure but the machine's, so nothing is marked and a rerun
    continues."""


class RankLost(MuvlaError):
    """Another process of the same training is gone: nobody's failure but the machine's, so nothing is marked and a
    rerun continues."""


class Interrupted(Exception):
    """A stop was asked for and everything so far is on disk."""


def _rebuild(cls, field, got, expected, remedy):
    return cls(field, got=got, expected=expected, remedy=remedy)


def unknown_name(field: str, got: object, known: Iterable[str], listed_by: str = "") -> MuvlaError:
    """The error for a name that is none of `known`: it suggests the nearest match.

    Args:
        field: option or field that holds the name.
        got: the name as it was given.
        known: every name that would do.
        listed_by: command that lists them all, for example `muvla ls tasks`; for long lists.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(str(got), names, n=3, cutoff=0.5)
    expected = f"one of {', '.join(near or names)}" if names else "nothing: there is none"
    if near:
        remedy = f"use {near[0]!r}" + (f"; `{listed_by}` lists all" if listed_by else "")
    else:
        remedy = f"`{listed_by}` lists all" if listed_by else "use one of them"
    return MuvlaError(field, got=got, expected=expected, remedy=remedy)
