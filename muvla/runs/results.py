"""The results of a run, read from its rows.

rows/<result>.jsonl         a line per episode
rows/<result>.never.json    instead of the rows: the intervention fired in no episode, so there is no result
"""

from __future__ import annotations

from pathlib import Path

from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow, read_rows, result_id
from muvla.evaluation.results import NeverFired, note_of, rows_never_fired
from muvla.runs.run import Run
from muvla.utils.io import read_json


def row_file(run: Run, protocol: Protocol, intervention: str) -> Path:
    """The file of one condition's rows. `intervention` is a canonical name or "none"."""
    return run.rows / f"{result_id(run.train, protocol, intervention)}.jsonl"


def result_rows(run: Run, protocol: Protocol, intervention: str) -> list[EpisodeRow]:
    """The last attempt of every episode."""
    rows = read_rows(row_file(run, protocol, intervention))
    return list({row.seed: row for row in rows}.values())


def has_result(run: Run, protocol: Protocol, intervention: str, without_errors: bool = False) -> bool:
    """True if every episode has a row. An intervention that fired in no episode has no result.

    Args:
        run: the run.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".
        without_errors: also require that no episode's last attempt ended in an error.
    """
    rows = result_rows(run, protocol, intervention)
    complete = len(rows) == protocol.episodes and not rows_never_fired(rows)
    return complete and not (without_errors and any(row.error for row in rows))


def never_fired(run: Run, protocol: Protocol, intervention: str) -> NeverFired | None:
    """The error of an evaluation whose intervention fired in no episode; else None."""
    note = note_of(row_file(run, protocol, intervention))
    return NeverFired(**read_json(note)) if note.exists() else None
