"""The seal of a result: a digest of every row, written when the result's last episode has ended.

rows/<result>.jsonl        a line per episode
seals/<result>.json        which result this is, under which protocol, and the digests of its lines

A seal is opened before the first episode and closed after the last one. A result with an open seal is not finished. A
result without a seal is older than seals: it is read, and reports call it "not sealed".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvla.config.serialization import from_dict, to_dict
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import DamagedResult, EpisodeRow, damages, remove, result_id
from muvla.utils.foreign import read_model
from muvla.utils.io import write_json

DIGITS = 32  # hexadecimal digits of a line's SHA-256


@dataclass(frozen=True)
class Seal:
    """The content of a seal's file.

    Attributes:
        train: train id.
        intervention: canonical name, or "none".
        protocol: every field of the protocol, as plain data.
        rows: digest of every line of the result; None while the result is not finished.
    """

    train: str
    intervention: str
    protocol: dict[str, Any]
    rows: list[str] | None = None

    @property
    def is_open(self) -> bool:
        return self.rows is None

    def get_protocol(self) -> Protocol:
        return from_dict(Protocol, self.protocol)


def seal_file(rows: Path) -> Path:
    """The file of the seal of these rows."""
    return rows.parent.parent / "seals" / f"{rows.stem}.json"


def open_seal(rows: Path, train: str, protocol: Protocol, intervention: str) -> None:
    """Write that episodes of the result are going to run. A closed seal is opened again.

    Args:
        rows: the result's file of rows.
        train: train id.
        protocol: of the episodes.
        intervention: canonical name, or "none".
    """
    write_json(seal_file(rows), asdict(Seal(train, intervention, to_dict(protocol))))


def close_seal(rows: Path) -> None:
    """Write the digests of all rows. A result that has no seal, or a closed one, is left as it is."""
    seal = read_seal(rows)
    if seal is not None and seal.is_open:
        write_json(seal_file(rows), asdict(seal) | {"rows": digests(rows)})


def read_seal(rows: Path) -> Seal | None:
    """The seal of these rows; None if the result is older than seals.

    Raises:
        DamagedResult: the file is no seal, or the seal of another result.
    """
    file = seal_file(rows)
    if not file.exists():
        return None
    with damages(rows, file):
        seal = read_model(file, Seal)
        protocol = seal.get_protocol()
    seal_result = result_id(seal.train, protocol, seal.intervention)
    if seal_result != rows.stem:
        raise DamagedResult(
            f"{file}: result",
            got=seal_result,
            expected=f"{rows.stem}, as in the file's name",
            remedy=remove(rows, file),
        )
    return seal


def require_sealed(path: Path, rows: Sequence[EpisodeRow], seal: Seal | None) -> None:
    """Raises DamagedResult for a measured row that is not in a closed seal: the row was changed or added later.

    Rows may be missing: the result is then not complete and is continued. An error row measures nothing. Every summary
    counts the error, and `missing_rows` recognises the row that it has replaced.

    Args:
        path: the result's file.
        rows: its rows.
        seal: its seal; None for a result that is older than seals.
    """
    if seal is None or seal.rows is None:
        return
    sealed = set(seal.rows)
    for number, (row, digest) in enumerate(zip(rows, digests(path), strict=True), start=1):
        if digest not in sealed and row.error is None:
            raise DamagedResult(
                f"{path}:{number}",
                got=f"digest {digest}",
                expected=f"a row as it was written; {seal_file(path).name} has the digests",
                remedy=f"restore the row, or {remove(path)}",
            )


def missing_rows(rows: Path, seal: Seal) -> int:
    """How many sealed rows the file lacks."""
    return len(set(seal.rows or ()) - set(digests(rows)))


def digests(rows: Path) -> list[str]:
    """Digest of every complete line; () without a file."""
    lines = rows.read_bytes().split(b"\n")[:-1] if rows.exists() else []
    return [hashlib.sha256(line).hexdigest()[:DIGITS] for line in lines]
