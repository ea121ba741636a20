"""What a probe is. Both kinds are versioned, listed in a study's `probes`, and drawn by its report.

A Grid is episode rows: points of protocol × intervention, each with its coordinates in the probe's own axes.
A Measurement runs a trained cell's memory, and returns a tidy frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium

from muvla.config import Cell
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.models.policy import Policy

if TYPE_CHECKING:
    import pandas as pd

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
# What a grid's frame says of each of its points, beside their coordinates.
RESERVED = re.compile(
    r"order|variant|seed|H|held|protocol|condition|never_fired|chance|difference(_.*)?|(choice|own|success)_.*"
)


@dataclass(frozen=True)
class Point:
    """One condition of a grid. `intervention` is a canonical name or "none"."""

    protocol: Protocol
    intervention: str
    coordinates: tuple[tuple[str, float | int | str], ...]


@dataclass(frozen=True)
class Grid:
    """`x` is the coordinate of the horizontal axis. With `y` it is drawn as a heatmap, one per value of `curve`; else
    with a curve per value of `curve`."""

    name: str
    version: int
    points: tuple[Point, ...]
    x: str
    y: str | None = None
    curve: str | None = None
    notes: str = ""

    def __post_init__(self):
        _require_name(self.name, self.version)
        if not self.points:
            raise MuvlaError(f"probe {self.id}", got="no point", expected="at least one", remedy="add a point")
        axes = [axis for axis in (self.x, self.y, self.curve) if axis is not None]
        for point in self.points:
            known = dict(point.coordinates)
            if missing := [axis for axis in axes if axis not in known]:
                raise MuvlaError(
                    f"probe {self.id}, point {known}",
                    got=f"no coordinate {missing[0]!r}",
                    expected=f"the axes {', '.join(axes)}",
                    remedy="give every point all of its probe's axes",
                )
            if taken := [name for name in known if RESERVED.fullmatch(name)]:
                raise MuvlaError(
                    f"probe {self.id}, point {known}",
                    got=f"a coordinate {taken[0]!r}",
                    expected="a name that the report does not use itself",
                    remedy="call the coordinate something else",
                )

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Subject:
    """What a reading reads: a trained cell with a protocol's task and episodes."""

    policy: Policy  # in evaluation mode
    statistics: Statistics
    protocol: Protocol
    cell: Cell | None  # None for a release
    seeds: tuple[int, ...]  # of the episodes to use
    folder: Path  # for what is no frame (traces, figures, videos)
    open_env: Callable[[], gymnasium.Env]
    store: Callable[[], EpisodeStore]  # what the cell was trained on
    check_stop: Callable[[], None] = lambda: None  # to be called often: it raises when a stop is asked for


@dataclass(frozen=True)
class Measurement:
    """`x` and `y` are the columns that are drawn, with a curve per value of column `curve`; `low`, `high` the columns
    of an interval, `chance` that of a bound, which the legend calls by that column's name; a `y` that is a `share` is
    drawn from 0 to 1. What further columns say is the reading's own."""

    name: str
    version: int
    read: Callable[[Subject], pd.DataFrame]
    x: str
    y: str
    curve: str | None = None
    low: str | None = None
    high: str | None = None
    chance: str | None = None
    share: bool = False
    needs_memory: bool = True
    needs_recurrence: bool = False  # also that it is carried from tick to tick, as learned tokens are not

    def __post_init__(self):
        _require_name(self.name, self.version)

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def columns(self) -> tuple[str, ...]:
        """That its frame must have."""
        return tuple(c for c in (self.x, self.y, self.curve, self.low, self.high, self.chance) if c is not None)


@dataclass(frozen=True)
class ScheduledMeasurement:
    """A reading of the first `episodes` of a protocol, all of them by default: what a study lists."""

    reading: Measurement
    protocol: Protocol
    episodes: int | None = None

    def __post_init__(self):
        if self.episodes is not None and not 1 <= self.episodes <= self.protocol.episodes:
            raise MuvlaError(
                f"probe {self.reading.id}: episodes",
                got=self.episodes,
                expected=f"1 to {self.protocol.episodes}, those of {self.protocol.id}",
                remedy="correct it",
            )

    @property
    def id(self) -> str:
        return self.reading.id

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.protocol.seed, self.protocol.seed + (self.episodes or self.protocol.episodes)))


def _require_name(name: str, version: int) -> None:
    if not NAME.fullmatch(name):
        raise MuvlaError(
            "probe.name", got=name, expected="small letters, digits and hyphens: it names files", remedy="rename it"
        )
    if not isinstance(version, int) or version < 1:
        raise MuvlaError("probe.version", got=version, expected="a whole number ≥ 1", remedy="correct it")
