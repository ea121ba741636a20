"""What of a run's results is finished, read off its rows.

rows/<result>.jsonl         a line per episode
rows/<result>.never.json    in its place: the intervention acted in none of its episodes, so it has no result
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow, RowFile, read_rows, result_id
from muvla.utils.io import read_json, write_json


class NeverFired(MuvlaError):
    """An intervention that acted in no episode: its rows are those of no intervention."""


class Results:
    """The part of a `Run` that tells what was measured."""

    train: str  # train id
    rows: Path

    def result_rows(self, protocol: Protocol, intervention_name: str) -> list[EpisodeRow]:
        """The last attempt of every episode."""
        rows = read_rows(self.rows / f"{result_id(self.train, protocol, intervention_name)}.jsonl")
        return list({row.seed: row for row in rows}.values())

    def has_result(self, protocol: Protocol, intervention_name: str, without_errors: bool = False) -> bool:
        """Whether every episode has a row, without errors if told. Of an intervention that acted in none of them it has
        none, however many rows there are."""
        rows = self.result_rows(protocol, intervention_name)
        complete = len(rows) == protocol.episodes and not _never_fired(rows)
        return complete and not (without_errors and any(row.error for row in rows))

    def never_fired(self, protocol: Protocol, intervention_name: str) -> NeverFired | None:
        """The error that its evaluation ended with; None where it did not end so."""
        note = _note(self.rows / f"{result_id(self.train, protocol, intervention_name)}.jsonl")
        return NeverFired(**read_json(note)) if note.exists() else None


def require_fired(file: RowFile, name: str) -> None:
    """Raises NeverFired, with the rows set aside as `.invalid` and the error kept in their place, so that nobody tries
    it again."""
    if _never_fired(file.rows):
        steps = [row.steps for row in file.rows if row.error is None]
        told: dict[str, Any] = {
            "field": f"intervention {name}",
            "got": f"a schedule that fired in none of {len(steps)} episodes",
            "expected": f"a tick at which it does; the longest has {max(steps)} steps",
            "remedy": "choose another schedule",
        }
        write_json(_note(file.path), told)
        file.path.replace(file.path.with_suffix(".invalid"))
        raise NeverFired(**told)


def _never_fired(rows: list[EpisodeRow]) -> bool:
    """Not so of rows that do not tell."""
    measured = [row for row in rows if row.error is None and row.fired is not None]
    return bool(measured) and not any(row.fired for row in measured)


def _note(rows: Path) -> Path:
    return rows.with_suffix(".never.json")
