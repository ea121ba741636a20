"""The one error that a user sees: which field, what was got, what was expected, and the remedy."""

from __future__ import annotations

from typing import Any


class MuvlaError(ValueError):
    """Bad input or a bad environment. The command line prints it as it is, without a traceback, and exits with 2."""

    said = False  # by another process of the same training

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
