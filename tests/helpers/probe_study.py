"""Probes and a prediction of a small study; the study's file imports this module."""

from __future__ import annotations

import dataclasses

import pandas as pd

from muvla.evaluation.catalog import get_protocol
from muvla.probes.base import Grid, Measurement, Point
from sweeps.predictions import Prediction

BASE = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="few", episodes=6, slots=3)


LONGER = dataclasses.replace(BASE, name="few-longer", step_limit=20)


def read_widths(subject) -> pd.DataFrame:
    """The memory's width by episode."""
    (subject.folder / "note.txt").write_text("no frame")
    assert not subject.policy.training and len(subject.store()) and subject.open_env().observation_space
    return pd.DataFrame({"seed_of": subject.seeds, "value": subject.policy.memory.tokens})


WIDTHS = Measurement("widths", 1, read_widths, x="seed_of", y="value")


CARRIED = Measurement("carried", 1, read_widths, x="seed_of", y="value", needs_recurrence=True)


ANY = Measurement("any", 1, read_widths, x="seed_of", y="value", needs_memory=False)


GRID = Grid(
    "limits",
    1,
    x="limit",
    curve="memory",
    points=(
        Point(BASE, "none", (("limit", 15), ("memory", "active"))),
        Point(BASE, "zero", (("limit", 15), ("memory", "zero"))),
        Point(LONGER, "none", (("limit", 20), ("memory", "active"))),
        Point(LONGER, "zero", (("limit", 20), ("memory", "zero"))),
    ),
)


MAP = Grid(
    "map",
    1,
    x="step",
    y="tokens",
    curve="kind",
    points=tuple(
        Point(BASE, f"zero{tokens}@{step}", (("step", step), ("tokens", tokens or "all"), ("kind", "zero")))
        for step in (0, 1)
        for tokens in ("", "[0:2]")
    ),
)


LOWER = Prediction("zero does nothing", ("K=8",), "zero", "null")
