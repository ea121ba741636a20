"""Readers of an intervention's argument: text → value. A reader raises ValueError with the expected form."""

from __future__ import annotations


def natural_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("a whole number ≥ 0")
    return int(text)


def scale(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError("a finite number ≥ 0")
    return number
