"""What a probe is."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Point:
    """One evaluation of a grid."""

    protocol: Protocol
    intervention: str = "none"
    coordinates: tuple[tuple[str, float | int | str], ...] = ()


@dataclass(frozen=True)
class Grid:
    """Episode rows of protocols × interventions."""

    name: str
    version: int
    points: tuple[Point, ...]
    x: str  # coordinate of the horizontal axis
    y: str | None = None  # second axis: then a heatmap
    curve: str | None = None  # coordinate with a curve per value
    notes: str = ""
