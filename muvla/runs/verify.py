"""Check a run folder: every file holds, belongs to this run, and is as it was written.

Nothing is changed. A question that a check cannot decide is a note, never a fault.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muvla.checkpoints import native
from muvla.config import train_id
from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.evaluation.action_chunks import ChunkFile
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import DamagedResult, EpisodeRow, read_rows, remove
from muvla.evaluation.results import note_of, read_note
from muvla.evaluation.row_checks import require_condition, require_own_rows
from muvla.evaluation.seal import missing_rows, read_seal, require_sealed
from muvla.runs.probe import read_meta
from muvla.runs.run import Run
from muvla.utils.foreign import read_object
from muvla.utils.io import read_lines
from muvla.utils.provenance import provenance_id

RELEASE_FACTS = ("train", "name", "path", "memory")  # of release.json; the other fields are the content of the id


@dataclass
class Verification:
    """The faults that a check of one run folder found.

    Attributes:
        train: train id, or the name of a baseline.
        sealed: results whose rows are as they were written.
        unsealed: results that are older than seals.
        unfinished: results whose evaluation has not ended.
        faults: an error for every file that does not hold.
        notes: facts that are no fault: unchecked parts, files of dead writers.
    """

    train: str
    sealed: int = 0
    unsealed: int = 0
    unfinished: int = 0
    faults: list[MuvlaError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the block's error about a file as a fault."""
        try:
            yield
        except MuvlaError as error:
            self.faults.append(error)

    def require(self, ok: bool, where: str, *, got: Any, expected: str, remedy: str) -> None:
        if not ok:
            self.faults.append(MuvlaError(where, got=got, expected=expected, remedy=remedy))

    def plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        faults = [
            {"file": fault.field, "got": str(fault.got), "expected": fault.expected, "remedy": fault.remedy}
            for fault in self.faults
        ]
        return {
            "train": self.train,
            "sealed": self.sealed,
            "not_sealed": self.unsealed,
            "unfinished": self.unfinished,
            "faults": faults,
            "notes": self.notes,
        }


def run_folders(root: Path) -> list[str]:
    """Names of all folders under `root` that hold a cell, a release's rows or a baseline's rows, sorted."""
    marks = ("run.json", "release.json", "rows")
    return sorted({path.parent.name for mark in marks for path in root.glob(f"*/{mark}")})


def verify_run(run: Run, protocols: Iterable[Protocol] = ()) -> Verification:
    """Check every file of a run.

    Args:
        run: the run, also of a release or a baseline.
        protocols: protocols of the run's study; those of the suites and those in seals are known anyway.
    """
    verification = Verification(run.train)
    seeds: tuple[int | None, ...] = ()  # the training seeds that rows may have; () where they cannot be known
    with verification.collecting():
        seeds = (_check_identity(run, verification),)
    with verification.collecting():
        _ = run.failure
    by_hash = {protocol.hash: protocol for protocol in (*declared_protocols().values(), *protocols)}
    for file in sorted(run.rows.glob("*.jsonl")):
        with verification.collecting():
            _check_result(run, file, by_hash, seeds, verification)
    _check_beside_rows(run, verification)
    _check_logs(run, verification)
    _check_measurements(run, verification)
    if leftovers := list(run.folder.rglob(".*.tmp")):
        verification.notes.append(f"{len(leftovers)} temporary files; a writer that has ended left them, or one writes")
    return verification


def _check_identity(run: Run, verification: Verification) -> int | None:
    """Check `run.json`, the checkpoints and `release.json` against the train id. Return the training seed."""
    release, meta_file = run.folder / "release.json", run.folder / "run.json"
    if release.exists():
        meta = read_object(release)
        content = {name: value for name, value in meta.items() if name not in RELEASE_FACTS}
        _require_id(f"{release}: content", content_hash(content), run, verification)
    if not run.is_created:
        return None
    cell, data = run.cell, run.meta.sha256
    _require_id(f"{meta_file}: train", run.meta.train, run, verification)
    starts: set[str | None] = {None} if cell.start.checkpoint is None else set()
    for folder in sorted(
        path for name in ("checkpoints", native.WEIGHTS) for path in (run.folder / name).glob("update-*")
    ):
        with verification.collecting():
            saved = native.verify(folder)
            starts.add(saved.start)
            computed = train_id(saved.cell, data, saved.start)
            _require_id(f"{folder / native.META}: cell", computed, run, verification)
    with verification.collecting():
        native.selected(run.folder / "checkpoints")
    for start in starts:
        _require_id(f"{meta_file}: cell", train_id(cell, data, start), run, verification)
    return cell.seed


def _require_id(where: str, got: Any, run: Run, verification: Verification) -> None:
    verification.require(
        got == run.train,
        where,
        got=got,
        expected=f"{run.train}, the name of the folder",
        remedy="restore the file: its content is another run's, or was changed",
    )


def _check_result(
    run: Run, file: Path, by_hash: dict[str, Protocol], seeds: tuple[int | None, ...], verification: Verification
) -> None:
    rows, seal = read_rows(file), read_seal(file)
    require_own_rows(file, rows)
    protocol = seal.get_protocol() if seal else by_hash.get(rows[0].protocol_hash) if rows else None
    if rows and protocol is None:
        verification.notes.append(f"{file}: no suite declares {rows[0].protocol}: seeds and choices are not checked")
    intervention = seal.intervention if seal else rows[0].intervention if rows else "none"
    if rows and protocol:
        require_condition(file, rows, run.train, protocol, intervention)
    for number, row in enumerate(rows, start=1):
        for name, expected in (("train", (run.train,)), ("training_seed", seeds)):
            if expected and getattr(row, name) not in expected:
                raise DamagedResult(
                    f"{file}:{number}: {name}", got=getattr(row, name), expected=f"{expected[0]}", remedy=remove(file)
                )
    require_sealed(file, rows, seal)
    if seal is None:
        verification.unsealed += 1
    elif seal.rows is None:
        verification.unfinished += 1
    else:
        verification.sealed += 1
        verification.require(
            (lacking := missing_rows(file, seal)) == 0,
            str(file),
            got=f"{lacking} sealed rows too few",
            expected=f"the {len(seal.rows)} rows that were sealed",
            remedy="run the command that evaluates this result, with --retry-errors for error rows",
        )
    _check_provenance(run, file, rows, verification)


def _check_provenance(run: Run, file: Path, rows: list[EpisodeRow], verification: Verification) -> None:
    for identity in sorted({row.provenance for row in rows}):
        record = run.folder / "provenance" / f"{identity}.json"
        verification.require(
            record.exists(),
            f"{file}: provenance",
            got=identity,
            expected=f"a record, {record}",
            remedy="restore the record; without it a report refuses these rows",
        )


def _check_beside_rows(run: Run, verification: Verification) -> None:
    """Seals without rows, notes of interventions that never fired, provenance records and predicted chunks."""
    for seal in sorted((run.folder / "seals").glob("*.json")):
        rows = run.rows / f"{seal.stem}.jsonl"
        with verification.collecting():
            content = read_seal(rows) if not rows.exists() else None
            verification.require(
                content is None or content.is_open,
                str(rows),
                got="no such file",
                expected=f"the rows that {seal} names",
                remedy="the command that evaluates this result runs its episodes again",
            )
    for note in sorted(run.rows.glob("*.never.json")):
        with verification.collecting():
            read_note(note_of(note.with_name(note.name.removesuffix(".never.json") + ".jsonl")))
    for record in sorted((run.folder / "provenance").glob("*.json")):
        with verification.collecting():
            computed = provenance_id(read_object(record))
            verification.require(
                computed == record.stem,
                str(record),
                got=f"content {computed}",
                expected=f"content {record.stem}, as in the file's name",
                remedy="restore the record",
            )
    for chunks in sorted((run.folder / "chunks").glob("*.jsonl")):
        with verification.collecting():
            ChunkFile(chunks.parent, chunks.stem).read()


def _check_logs(run: Run, verification: Verification) -> None:
    """`train.jsonl`, whose updates grow, and `timings.jsonl`."""
    log = run.folder / "train.jsonl"
    with verification.collecting():
        before = 0
        for number, line in enumerate(read_lines(log), start=1):
            update = line.get("update") if isinstance(line, dict) else None
            if not isinstance(update, int) or update <= before:
                raise MuvlaError(
                    f"{log}:{number}: update",
                    got=update,
                    expected=f"more than {before}, the update of the line before",
                    remedy="two processes wrote this log, or the log was changed; no result depends on the log",
                )
            before = update
    with verification.collecting():
        run.seconds()


def _check_measurements(run: Run, verification: Verification) -> None:
    for meta in sorted((run.folder / "probes").glob("*.json")):
        frame = meta.with_suffix(".csv")
        if not frame.exists():
            verification.notes.append(f"{meta}: no frame; the measurement is taken again")
            continue
        with verification.collecting():
            if read_meta(frame).sha256 is None:
                verification.unsealed += 1
            else:
                verification.sealed += 1
