"""The format of `rows.jsonl.gz`, the committed rows of a study.

The file is gzip of JSON lines. Every line but an episode's row is an object whose field `line` names one of the models
below. A line `result` is followed by its rows, as the run folder holds them, sorted by episode. The line `end` holds a
digest of all bytes before it, so a changed line is recognised. Equal results give equal bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

NAME = "rows.jsonl.gz"
VERSION = 1
DIGITS = 8  # hexadecimal digits of a row's SHA-256: the first ones of its digest in the seal of the run


class Line(msgspec.Struct, tag_field="line", forbid_unknown_fields=True):
    """A line that is no row."""


class HeadLine(Line, tag="rows"):
    """The first line."""

    version: int


class StudyLine(Line, tag="study"):
    """A study, and the sentences of its report that need its data."""

    name: str
    title: str
    coverage: list[str]
    costs: list[list[str]]


class ProtocolLine(Line, tag="protocol"):
    """A protocol with all its fields."""

    id: str
    hash: str
    content: dict[str, Any]


class ProvenanceLine(Line, tag="provenance"):
    """A provenance record. `printed` marks a record that was taken from a printed report, so that its id is not its
    hash."""

    id: str
    record: dict[str, Any]
    printed: bool = False


class BaselinesLine(Line, tag="baselines"):
    """The baselines of one protocol; their results name the baseline as `train`."""

    protocol: str
    present: list[str]
    absent: dict[str, str]
    provenance: list[str]
    damage: list[str]


class CellLine(Line, tag="cell"):
    """A cell. `data` and `start` are the digests that the train id was made of; null where they are unknown."""

    study: str
    variant: str
    train: str
    state: str
    cell: dict[str, Any]
    data: str | None
    start: str | None
    conditions: list[tuple[str, str]]
    never_fired: list[tuple[str, str]]
    provenance: list[str]
    seconds: dict[str, float]
    damage: list[str]
    remarks: list[str] = []


class CurveLine(Line, tag="curve"):
    """The learning curve of the cell before."""

    columns: dict[str, list[float | None]]


class MeasurementLine(Line, tag="measurement"):
    """A measurement of the cell before."""

    probe: str
    protocol: str
    provenance: str
    csv: str


class ChunksLine(Line, tag="chunks"):
    """How an intervention changes the predicted chunks of the cell before, by step since the cue's end."""

    protocol: str
    intervention: str
    since: list[int]
    n: list[int]
    mean: list[float]
    sd: list[float | None]


class ResultLine(Line, tag="result"):
    """A result; a row for each digest follows. `train` is a train id or the name of a baseline."""

    train: str
    protocol: str
    intervention: str
    sealed: bool
    digests: list[str]


class EndLine(Line, tag="end"):
    """The last line: the number of lines before, and the SHA-256 of their bytes."""

    lines: int
    sha256: str


AnyLine = (
    HeadLine
    | StudyLine
    | ProtocolLine
    | ProvenanceLine
    | BaselinesLine
    | CellLine
    | CurveLine
    | MeasurementLine
    | ChunksLine
    | ResultLine
    | EndLine
)


def digest(row: bytes) -> str:
    """The digest of a row's line, without its newline."""
    return hashlib.sha256(row).hexdigest()[:DIGITS]
