"""Episode rows: appended as episodes end. All tables are computed from rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from muvla.config import Cell
from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.utils.files import shorten
from muvla.utils.foreign import decode, require_object
from muvla.utils.io import append_line, read_lines


@dataclass(frozen=True)
class EpisodeRow:
    """One episode. Where `error` is set, nothing was measured: the OUTCOME_FIELDS are None, never False or 0."""

    result: str  # result id: train id + protocol + intervention
    train: str  # train id
    training_seed: int | None  # None for a release and for baselines
    task: str
    group: str  # suite
    protocol: str
    protocol_hash: str
    intervention: str
    seed: int  # of the episode
    attempt: int
    target: int | None  # None also in tasks without a target
    choice: int | None  # first object touched; -1 none
    cue_length: int | None  # steps
    delay_length: int | None
    first_decision_step: int | None
    success_once: bool | None
    success_at_end: bool | None
    first_success_step: int | None
    steps: int | None
    error: str | None
    seconds: float  # wall time of the episode, shared with the other slots of its batch
    environment_seconds: float  # the part in which the environment worked
    provenance: str
    # Fields added later are None in older rows.
    blank_length: int | None = None
    fired: int | None = None  # ticks at which the intervention acted
    donor_seed: int | None = None  # of the donor; None where no donor's memory was used
    donor_target: int | None = None
    # Of tasks in which several objects must be chosen, and absent from all other rows.
    choices: list[int] | None = None  # objects in the order in which they were touched
    right: int | None = None  # right touches before a wrong touch
    # Of evaluations during a training, and absent from all other rows.
    update: int | None = None  # the weights after this update

    @property
    def correct(self) -> bool:
        """The first touch is right; where any of several objects may be first, it need not be the target."""
        return self.choice == self.target if self.right is None else self.right > 0

    def plain(self) -> dict[str, Any]:
        """The line of a row file: every field, but for OPTIONAL_FIELDS without a value."""
        line = asdict(self)
        return {name: value for name, value in line.items() if name not in OPTIONAL_FIELDS or value is not None}


_NAMES = {f.name for f in fields(EpisodeRow)}
# Fields that a row holds only where they have a value.
OPTIONAL_FIELDS = ("choices", "right", "update")
ADDED_LATER = tuple(f.name for f in fields(EpisodeRow) if f.default is None)
# The fields that an episode has unless it ended in an error.
OUTCOME_FIELDS = (
    "target",
    "choice",
    "blank_length",
    "cue_length",
    "delay_length",
    "first_decision_step",
    "success_once",
    "success_at_end",
    "first_success_step",
    "steps",
    "fired",
    "donor_seed",
    "donor_target",
    "choices",
    "right",
)


def result_id(train: str, protocol: Protocol, intervention: str) -> str:
    """Return the hash of a train id, a protocol and the canonical name of an intervention."""
    return content_hash({"train": train, "protocol": protocol.hash, "intervention": intervention})


class DamagedResult(MuvlaError):
    """The files of a result do not hold. The result enters no table; other results are not concerned."""


class RowFile:
    """The rows of one result, in `<folder>/<result id>.jsonl`. Opening an existing file continues it."""

    def __init__(self, folder: Path, result: str):
        self.path = folder / f"{result}.jsonl"
        self.rows = read_rows(self.path)

    def append(self, row: EpisodeRow) -> None:
        append_line(self.path, row.plain())
        self.rows.append(row)

    def attempts(self, count_errors: bool = True) -> dict[int, int]:
        """Return episode seed → number of its last attempt. `count_errors=False` leaves out attempts with an error."""
        last = {row.seed: row for row in self.rows}
        return {seed: row.attempt for seed, row in last.items() if count_errors or not row.error}


def read_rows(path: Path) -> list[EpisodeRow]:
    """Read all attempts of a row file. `muvla.evaluation.row_checks` checks what the rows say.

    Raises:
        DamagedResult: a line is no JSON object, or has other fields or types than `EpisodeRow`.
    """
    with damages(path):
        return [read_row(line, f"{path}:{number}") for number, line in enumerate(read_lines(path), start=1)]


@contextlib.contextmanager
def damages(*paths: Path) -> Iterator[None]:
    """Turn an error about a file of a result into a DamagedResult, whose remedy is to remove `paths`."""
    try:
        yield
    except MuvlaError as error:
        raise DamagedResult(error.field, got=error.got, expected=error.expected, remedy=remove(*paths)) from None


def remove(*paths: Path) -> str:
    """The remedy for a damaged result."""
    return f"remove {' and '.join(map(str, paths))}; the command that made this result then makes it again"


def read_row(line: Any, where: str) -> EpisodeRow:
    """The row of a line of JSON. Raises MuvlaError for other fields or types than those of `EpisodeRow`."""
    if unknown := sorted(require_object(line, where).keys() - _NAMES):
        raise MuvlaError(
            f"{where}: {shorten(unknown[0])}",
            got="a field that this version does not know",
            expected="an episode row of this version",
            remedy="evaluate again with this version",
        )
    return decode(line, EpisodeRow, where)


@dataclass(frozen=True)
class Summary:
    """Counts over the episodes of one result. Errors are no outcomes and enter no rate."""

    episodes: int
    errors: int
    choices: int  # measured episodes of tasks in which something is chosen
    touched: int
    correct: int  # first choice is the target
    success: int  # success_once

    @property
    def measured(self) -> int:
        return self.episodes - self.errors

    @property
    def touch_rate(self) -> float | None:
        return self.touched / self.choices if self.choices else None

    @property
    def choice_accuracy(self) -> float | None:
        """First-touch accuracy given a touch: it separates recall from motor control."""
        return self.correct / self.touched if self.touched else None

    @property
    def success_rate(self) -> float | None:
        return self.success / self.measured if self.measured else None

    def text(self) -> str:
        """Return the metrics as one line for a terminal."""
        touch, choice, success = (
            "–" if rate is None else f"{rate:.3f}"
            for rate in (self.touch_rate, self.choice_accuracy, self.success_rate)
        )
        chosen = f"touch rate {touch}, choice accuracy given a touch {choice}, " if self.choices else ""
        errors = f", {self.errors} episodes with errors, in no rate (--retry-errors runs them)" if self.errors else ""
        return f"n {self.measured}, {chosen}success {success}{errors}"


@dataclass(frozen=True)
class GridPoint:
    """One point of a grid with one cell's rows: empty where the point has not run, or cannot run on this cell."""

    coordinates: dict[str, float | int | str]
    protocol: str  # its id
    intervention: str
    chance: float | None
    rows: list[EpisodeRow]
    never_fired: bool = False  # its intervention acted in no episode


@dataclass(frozen=True)
class GridRows:
    """A grid of a study's probes with one cell's rows, and the axes of its figure."""

    id: str
    x: str
    y: str | None
    curve: str | None
    notes: str
    points: tuple[GridPoint, ...]


@dataclass(frozen=True)
class TakenMeasurement:
    """A finished measurement of one cell: the columns of its figure, and its frame.

    The columns are explained in `muvla.probes.base.Measurement`.
    """

    id: str
    protocol: str  # its id
    x: str
    y: str
    curve: str | None
    low: str | None
    high: str | None
    chance: str | None
    episodes: int
    csv: str  # the frame, as the text of a CSV file
    provenance: str
    share: bool = False


@dataclass(frozen=True)
class Spread:
    """Number, mean and standard deviation of values; the deviation of one value is None."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Choices:
    """Counts of the first touch, over the episodes with a donor.

    `target` counts the episode's target, also where it is the donor's target. Episodes with an error are not counted.
    """

    target: int
    donor: int
    another: int
    none: int

    @property
    def pairs(self) -> int:
        return self.target + self.donor + self.another + self.none

    @property
    def follow_rate(self) -> float | None:
        """Share of the pairs in which the policy touches the donor's target first."""
        return self.donor / self.pairs if self.pairs else None


@dataclass(frozen=True)
class UpdateRows:
    """The evaluations of one cell during its training."""

    protocol: str  # id of the protocol that all updates share
    planned: tuple[int, ...]  # the declared updates that the cell's training has
    rows: dict[int, list[EpisodeRow]]  # update → rows of the complete result


@dataclass(frozen=True)
class CellRecords:
    """A trained cell with the rows of its complete results: the input of every table and figure."""

    variant: str
    cell: Cell  # canonical
    train: str  # train id
    state: str  # "done", or the reason why rows may be missing
    rows: dict[tuple[str, str], list[EpisodeRow]]  # (protocol id, intervention) → rows
    provenance: dict[str, dict[str, Any]]  # id → record, of its training and of its rows
    chance: dict[str, float | None]  # protocol id → highest first-choice accuracy without memory; None if unbounded
    seconds: dict[str, float]  # wall time of training and of evaluation
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # set id → ids of its protocols, all evaluated
    grids: tuple[GridRows, ...] = ()  # of its probes
    # (protocol id, intervention) → step since the cue's end → change of the predicted chunk over the episodes
    chunk_changes: dict[tuple[str, str], dict[int, Spread]] = field(default_factory=dict)
    measurements: tuple[TakenMeasurement, ...] = ()
    never_fired: tuple[tuple[str, str], ...] = ()  # keys of `rows` whose intervention acted in no episode
    damage: tuple[str, ...] = ()  # an error for every file that does not hold; its result has no rows here
    unsealed: int = 0  # results in `rows` that are older than seals (`muvla.evaluation.seal`)
    curve: dict[str, list[float | None]] = field(default_factory=dict)  # `muvla.runs.learning_curve`
    remarks: tuple[str, ...] = ()  # sentences about the cell that a report states
    not_applicable: dict[str, str] = field(default_factory=dict)  # intervention → why this memory cannot take it
    at_updates: UpdateRows | None = None  # None in a study that declares no time to learn


@dataclass(frozen=True)
class Baselines:
    """The baselines of one protocol. See `muvla.evaluation.baselines`."""

    rows: dict[str, list[EpisodeRow]] = field(default_factory=dict)  # `random`, `expert` → their complete results
    absent: dict[str, str] = field(default_factory=dict)  # a missing baseline → the reason
    ideal: dict[str, float | None] = field(default_factory=dict)  # metric → memoryless ideal; None where unknown
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)  # id → record, of the rows
    unbounded: str = ""  # why no accuracy bounds a policy without memory; empty where one does
    differs: dict[str, str] = field(default_factory=dict)  # baseline → fields of its provenance that no cell shares
    damage: tuple[str, ...] = ()  # an error for every file that does not hold
    unsealed: frozenset[str] = frozenset()  # baselines whose rows are older than seals


def summarise(rows: list[EpisodeRow]) -> Summary:
    """Count the outcomes of the rows, one per episode."""
    measured = [row for row in rows if row.error is None]
    return Summary(
        episodes=len(rows),
        errors=len(rows) - len(measured),
        choices=sum(row.target is not None for row in measured),
        touched=sum(row.choice != -1 for row in measured),
        correct=sum(row.correct for row in measured),
        success=sum(bool(row.success_once) for row in measured),
    )


def acted(rows: Iterable[EpisodeRow]) -> list[EpisodeRow]:
    """Return the measured episodes, without those in which the intervention never acted.

    Older rows do not say whether the intervention acted; they are included.
    """
    return [row for row in rows if row.error is None and row.fired != 0]


def choices(rows: list[EpisodeRow], donors: Mapping[int, int] | None = None) -> Choices:
    """Count first touches against the donors named in the rows.

    `donors`, episode seed → donor's target, replaces the rows' donors. With another result's donors, the count says how
    often the policy touches those targets anyway.
    """
    classes: list[str] = []
    for row in acted(rows):
        donor = row.donor_target if donors is None else donors.get(row.seed)
        if donor is not None:
            by_choice = {-1: "none", donor: "donor"}
            classes.append("target" if row.correct else by_choice.get(row.choice, "another"))
    return Choices(*(classes.count(name) for name in ("target", "donor", "another", "none")))
