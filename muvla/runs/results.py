"""The results of a run, read from its rows.

rows/<result>.jsonl         a line per episode
seals/<result>.json         digests of the finished result's lines (`muvla.evaluation.seal`)
rows/<result>.never.json    instead of the rows: the intervention fired in no episode, so there is no result
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow, result_id
from muvla.evaluation.results import NeverFired, note_of, read_note, rows_never_fired
from muvla.evaluation.row_checks import checked_rows
from muvla.runs.run import Run


@dataclass(frozen=True)
class Result:
    """One condition of a run, read once.

    Attributes:
        rows: the last attempt of every episode that has a row.
        is_complete: every episode has a row, and the evaluation has ended.
        is_sealed: the rows are as they were written; False for an unfinished result, and for a result that is older
            than seals.
        never_fired: the error of an evaluation whose intervention fired in no episode.
    """

    rows: list[EpisodeRow]
    is_complete: bool
    is_sealed: bool
    never_fired: NeverFired | None = None

    @property
    def has_errors(self) -> bool:
        return any(row.error for row in self.rows)


def row_file(run: Run, protocol: Protocol, intervention: str) -> Path:
    """The file of one condition's rows. `intervention` is a canonical name or "none"."""
    return run.rows / f"{result_id(run.train, protocol, intervention)}.jsonl"


def read_result(run: Run, protocol: Protocol, intervention: str) -> Result:
    """Read one condition of a run.

    Args:
        run: the run.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".

    Raises:
        DamagedResult: a file of the result does not hold.
    """
    file = row_file(run, protocol, intervention)
    attempts, seal = checked_rows(file, run.train, protocol, intervention)
    rows = list({row.seed: row for row in attempts}.values())
    complete = len(rows) == protocol.episodes and not rows_never_fired(rows) and not (seal and seal.is_open)
    return Result(rows, complete, seal is not None and not seal.is_open, read_note(note_of(file)))


def result_rows(run: Run, protocol: Protocol, intervention: str) -> list[EpisodeRow]:
    """The last attempt of every episode. Raises DamagedResult if a row is no row of this result."""
    return read_result(run, protocol, intervention).rows


def has_result(run: Run, protocol: Protocol, intervention: str, without_errors: bool = False) -> bool:
    """True if every episode has a row and the evaluation has ended. An intervention that fired in no episode has no
    result.

    Args:
        run: the run.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".
        without_errors: also require that no episode's last attempt ended in an error.

    Raises:
        DamagedResult: a file of the result does not hold.
    """
    result = read_result(run, protocol, intervention)
    return result.is_complete and not (without_errors and result.has_errors)


def never_fired(run: Run, protocol: Protocol, intervention: str) -> NeverFired | None:
    """The error of an evaluation whose intervention fired in no episode; else None."""
    return read_result(run, protocol, intervention).never_fired
