"""A result whose intervention fired in no episode is no result.

rows/<result>.jsonl         a line per episode
rows/<result>.never.json    instead of the rows: the intervention fired in no episode
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvla.errors import MuvlaError
from muvla.evaluation.records import EpisodeRow, RowFile, damages
from muvla.evaluation.seal import seal_file
from muvla.utils.foreign import read_model
from muvla.utils.io import disk_errors, write_json


class NeverFired(MuvlaError):
    """The intervention fired in no episode: its rows would equal those without an intervention."""


def require_fired(file: RowFile, name: str) -> None:
    """Raises NeverFired if the intervention `name` fired in no episode.

    The rows are set aside as `.invalid`. The error is kept beside them, so that no later run tries the condition again.
    """
    if rows_never_fired(file.rows):
        steps = [row.steps for row in file.rows if row.error is None]
        error: dict[str, Any] = {
            "field": f"intervention {name}",
            "got": f"a schedule that fired in none of {len(steps)} episodes",
            "expected": f"a tick at which it fires; the longest episode has {max(steps)} steps",
            "remedy": "choose another schedule",
        }
        # The note comes last: a process that is killed before it runs the episodes again, and ends with the same note.
        set_aside(file.path)
        write_json(note_of(file.path), error)
        raise NeverFired(**error)


def set_aside(rows: Path) -> None:
    """Rename rows that are no measurement to `.invalid`, without their seal, so that no table reads them."""
    with disk_errors(rows):
        seal_file(rows).unlink(missing_ok=True)
        if rows.exists():
            rows.replace(rows.with_suffix(".invalid"))


def rows_never_fired(rows: list[EpisodeRow]) -> bool:
    """True if no row's intervention fired. Rows of older versions, which do not say, count as fired."""
    measured = [row for row in rows if row.error is None and row.fired is not None]
    return bool(measured) and not any(row.fired for row in measured)


def note_of(rows: Path) -> Path:
    """The file that replaces these rows if the intervention fired in no episode."""
    return rows.with_suffix(".never.json")


def read_note(note: Path) -> NeverFired | None:
    """The error that a note keeps; None without the file. Raises DamagedResult for a file that is no note."""
    if not note.exists():
        return None
    with damages(note):
        return NeverFired(**asdict(read_model(note, _Note)))


@dataclass(frozen=True)
class _Note:
    field: str
    got: str
    expected: str
    remedy: str
