"""Checks of a result's rows: every row belongs to its file, to its condition, and to one attempt at one episode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvla.config.serialization import content_hash
from muvla.envs.registry import task_info
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import DamagedResult, EpisodeRow, read_rows, remove, result_id
from muvla.evaluation.seal import Seal, read_seal, require_sealed

Fault = tuple[str, Any, str]  # field of a row, value, expected
UNMEASURED = ("target", "choice", "success_once")  # the fields that rates are made of


def checked_rows(path: Path, train: str, protocol: Protocol, intervention: str) -> tuple[list[EpisodeRow], Seal | None]:
    """All attempts of a result in the order of the file, and its seal.

    Args:
        path: the result's file; no rows if it does not exist.
        train: train id.
        protocol: of the result.
        intervention: canonical name, or "none".

    Returns:
        The rows, and the seal; None for a result that is older than seals.

    Raises:
        DamagedResult: a row is no row of this result, is there twice, or is not as it was written.
    """
    rows, seal = read_rows(path), read_seal(path)
    if rows:
        require_own_rows(path, rows)
        require_condition(path, rows, train, protocol, intervention)
        require_sealed(path, rows, seal)
    return rows, seal


def require_own_rows(path: Path, rows: Sequence[EpisodeRow]) -> None:
    """Raises DamagedResult for a fault that the file alone shows: identity, outcome fields, attempts."""
    last: dict[int, EpisodeRow] = {}
    identities: dict[tuple[str, str, str], str] = {}
    for number, row in enumerate(rows, start=1):
        identity = row.train, row.protocol_hash, row.intervention
        if identity not in identities:
            named = dict(zip(("train", "protocol", "intervention"), identity, strict=True))
            identities[identity] = content_hash(named)
        faults = [*_identity_faults(row, path.stem, identities[identity]), *_outcome_faults(row)]
        faults += _attempt_faults(row, last.get(row.seed))
        for fault in faults:
            raise _damaged(path, number, fault)
        last[row.seed] = row


def find_faults(
    rows: Sequence[EpisodeRow], train: str, protocol: Protocol, intervention: str
) -> Iterator[tuple[int, Fault]]:
    """The faults of rows that claim to belong to a condition, as (index of the row, (field, value, expected)).

    Args:
        rows: the last attempt of every episode.
        train: train id.
        protocol: the protocol.
        intervention: canonical name, or "none".
    """
    result, condition = result_id(train, protocol, intervention), Condition.of(train, protocol, intervention)
    for index, row in enumerate(rows):
        for fault in (*_identity_faults(row, result, result), *condition.faults(row), *_outcome_faults(row)):
            yield index, fault


def require_condition(
    path: Path, rows: Sequence[EpisodeRow], train: str, protocol: Protocol, intervention: str
) -> None:
    """Raises DamagedResult for a row of another run, protocol, intervention or episode, or of an impossible choice.

    Args:
        path: the result's file.
        rows: its rows.
        train: train id.
        protocol: of the result.
        intervention: canonical name, or "none".
    """
    condition = Condition.of(train, protocol, intervention)
    for number, row in enumerate(rows, start=1):
        for fault in condition.faults(row):
            raise _damaged(path, number, fault)


@dataclass(frozen=True)
class Condition:
    """The values that all rows of a result share, and the numbers of its episodes and objects."""

    fields: dict[str, str]
    protocol: Protocol
    objects: int | None

    @classmethod
    def of(cls, train: str, protocol: Protocol, intervention: str) -> Condition:
        info = task_info(protocol.task.name)
        fields = {
            "train": train,
            "protocol": protocol.id,
            "protocol_hash": protocol.hash,
            "intervention": intervention,
            "task": protocol.task.name,
            "group": info.suite,
        }
        return cls(fields, protocol, protocol.task.objects or info.choices)

    def faults(self, row: EpisodeRow) -> Iterator[Fault]:
        """The fields in which the row is no row of this condition."""
        for name, expected in self.fields.items():
            if getattr(row, name) != expected:
                yield name, getattr(row, name), expected
        if row.update != self.protocol.update:
            yield "update", row.update, f"{self.protocol.update}, as in the protocol"
        first, episodes = self.protocol.seed, self.protocol.episodes
        if not 0 <= row.seed - first < episodes:
            yield "seed", row.seed, f"{first}…{first + episodes - 1}, the episodes of {self.protocol.id}"
        for name in ("target", "choice", "donor_target"):
            value = getattr(row, name)
            if self.objects is not None and value is not None and value >= self.objects:
                yield name, value, f"less than {self.objects}, the objects of the task"


def _identity_faults(row: EpisodeRow, name: str, result: str) -> Iterator[Fault]:
    if row.result != name:
        yield "result", row.result, f"{name}, as in the file's name"
    if row.result != result:
        yield "result", row.result, f"{result}, the hash of the row's train id, protocol hash and intervention"

    for name in ("seconds", "environment_seconds"):
        if not 0 <= getattr(row, name) < math.inf:
            yield name, getattr(row, name), "finite seconds"


def _outcome_faults(row: EpisodeRow) -> Iterator[Fault]:
    if row.error is not None:
        for name in UNMEASURED:
            if getattr(row, name) is not None:
                yield name, getattr(row, name), "null in an episode that ended in an error"
        return
    if row.success_once is None:
        yield "success_once", None, "true or false"
    elif row.success_once != (row.first_success_step is not None):
        yield "success_once", row.success_once, f"the answer to first_success_step {row.first_success_step}"
    if row.choice is None or row.choice < -1:
        yield "choice", row.choice, "the number of an object, or -1"
    if row.steps is None or row.steps < 1:
        yield "steps", row.steps, "at least 1"
    for name in ("target", "cue_length", "delay_length", "blank_length", "first_decision_step", "fired"):
        if (getattr(row, name) or 0) < 0:
            yield name, getattr(row, name), "at least 0"
    if row.choices is not None and [row.choice] != (row.choices[:1] or [-1]):
        yield "choices", row.choices, f"the choice {row.choice} first"
    if (row.right or 0) > len(row.choices or ()):
        yield "right", row.right, "at most the number of choices"
    for name in ("first_decision_step", "first_success_step"):
        if row.steps is not None and (getattr(row, name) or 0) > row.steps:
            yield name, getattr(row, name), f"at most the {row.steps} steps of the episode"


def _attempt_faults(row: EpisodeRow, earlier: EpisodeRow | None) -> Iterator[Fault]:
    if earlier is None:
        if row.attempt < 1:
            yield "attempt", row.attempt, "at least 1"
    elif row.attempt <= earlier.attempt:
        yield "attempt", row.attempt, f"more than {earlier.attempt}, an earlier attempt at episode {row.seed}"
    elif earlier.error is None:
        yield "attempt", row.attempt, f"no attempt after number {earlier.attempt} at {row.seed}, which was measured"


def _damaged(path: Path, number: int, fault: Fault) -> DamagedResult:
    name, got, expected = fault
    return DamagedResult(f"{path}:{number}: {name}", got=got, expected=expected, remedy=remove(path))
