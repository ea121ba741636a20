"""The contract of a probe. Probes are versioned, listed in a study's `probes`, and drawn by its report.

A Measurement reads the state of a trained policy and returns a tidy frame.
A Grid changes the task or the memory: points of protocol × intervention, whose episode rows are evaluated like any.
`muvla.probes.registry` finds a probe by name; docs/extending/probe.md adds one step by step.
"""

from __future__ import annotations

import re
from abc import ABC
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
# Columns of a grid's frame; no coordinate may have such a name.
RESERVED = re.compile(
    r"order|variant|seed|H|held|protocol|condition|never_fired|chance|difference(_.*)?|(choice|own|success)_.*"
)


@dataclass(frozen=True)
class Probe(ABC):
    """A named, versioned probe.

    Attributes:
        name: small letters, digits and hyphens; it names files.
        version: from 1 on. Raise it with every change that changes a number: finished results of another version are
            other results, and are not touched.
    """

    name: str
    version: int

    def __post_init__(self):
        if not NAME.fullmatch(self.name):
            raise MuvlaError(
                "probe.name",
                got=self.name,
                expected="small letters, digits and hyphens: it names files",
                remedy="rename the probe",
            )
        if not isinstance(self.version, int) or self.version < 1:
            raise MuvlaError(
                "probe.version", got=self.version, expected="a whole number ≥ 1", remedy="count versions from 1"
            )

    @property
    def id(self) -> str:
        """For example `decoders@2`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Point:
    """One condition of a grid. `intervention` is a canonical name or "none"."""

    protocol: Protocol
    intervention: str
    coordinates: tuple[tuple[str, float | int | str], ...]  # (axis, value) on the grid's axes, and further ones


@dataclass(frozen=True)
class Grid(Probe):
    """A grid of conditions. Its registry entry is a function from the protocol that the grid starts from to the Grid.

    The function must build the same points whenever it is called with the same arguments: finished rows are found by
    the points' protocols and interventions. Points that change nothing should be the base protocol itself, whose rows
    are shared.

    Attributes:
        points: the conditions; every point has a coordinate on every axis.
        x: coordinate on the horizontal axis.
        y: with it the grid is drawn as a heatmap, one per value of `curve`; without it, as a curve per value.
        curve: coordinate that tells the curves or heatmaps apart.
        notes: printed below the figure.
    """

    points: tuple[Point, ...]
    x: str
    y: str | None = None
    curve: str | None = None
    notes: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not self.points:
            raise MuvlaError(f"probe {self.id}", got="no point", expected="at least one", remedy="add a point")
        axes = [axis for axis in (self.x, self.y, self.curve) if axis is not None]
        for point in self.points:
            coordinates = dict(point.coordinates)
            if missing := [axis for axis in axes if axis not in coordinates]:
                raise MuvlaError(
                    f"probe {self.id}, point {coordinates}",
                    got=f"no coordinate {missing[0]!r}",
                    expected=f"the axes {', '.join(axes)}",
                    remedy="give every point a coordinate on each of its probe's axes",
                )
            if reserved := [name for name in coordinates if RESERVED.fullmatch(name)]:
                raise MuvlaError(
                    f"probe {self.id}, point {coordinates}",
                    got=f"a coordinate {reserved[0]!r}",
                    expected="a name that is no column of the grid's frame",
                    remedy="rename the coordinate",
                )


@dataclass(frozen=True)
class Subject:
    """A trained policy with the task and the episodes of a protocol, for a measurement."""

    policy: Policy  # in evaluation mode
    statistics: Statistics
    protocol: Protocol
    cell: Cell | None  # None for a release
    seeds: tuple[int, ...]  # of the episodes to use
    folder: Path  # for traces, figures and videos
    open_env: Callable[[], gymnasium.Env]  # opens an environment of the protocol
    store: Callable[[], EpisodeStore]  # opens the dataset that the cell was trained on
    check_stop: Callable[[], None] = lambda: None  # raises when a stop is asked for


@dataclass(frozen=True)
class Measurement(Probe):
    """A measurement on a trained policy. Its registry entry is the Measurement itself.

    `read(subject)` returns a tidy frame. The same subject must give the same frame, because an interrupted measurement
    is repeated. `read` calls `subject.check_stop()` several times per episode, changes no parameter of the policy,
    writes files into `subject.folder` alone, and raises MuvlaError for a subject that it cannot read.

    Attributes:
        read: see above.
        x: column on the horizontal axis.
        y: column on the vertical axis.
        curve: column with a curve per value; rows without a value are not drawn.
        low, high: columns of an interval of `y`.
        chance: column of a bound, which the legend calls by the column's name.
        share: `y` is a share, drawn from 0 to 1.
        needs_memory: the measurement refuses a policy without a memory.
        needs_times: the measurement refuses a memory that searches no entries with times.
        needs_recurrence: the memory must also be carried from tick to tick; learned tokens are not.
    """

    read: Callable[[Subject], pd.DataFrame]
    x: str
    y: str
    curve: str | None = None
    low: str | None = None
    high: str | None = None
    chance: str | None = None
    share: bool = False
    needs_memory: bool = True
    needs_recurrence: bool = False
    needs_times: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the frame must have; it may have more."""
        return tuple(c for c in (self.x, self.y, self.curve, self.low, self.high, self.chance) if c is not None)


@dataclass(frozen=True)
class ScheduledMeasurement:
    """A measurement on the first `episodes` of a protocol, by default on all: an entry of a study's `probes`."""

    measurement: Measurement
    protocol: Protocol
    episodes: int | None = None

    def __post_init__(self):
        if self.episodes is not None and not 1 <= self.episodes <= self.protocol.episodes:
            raise MuvlaError(
                f"probe {self.id}: episodes",
                got=self.episodes,
                expected=f"1 to {self.protocol.episodes}, the episodes of {self.protocol.id}",
                remedy="choose fewer episodes, or a protocol with more",
            )

    @property
    def id(self) -> str:
        return self.measurement.id

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.protocol.seed, self.protocol.seed + (self.episodes or self.protocol.episodes)))
