"""Reads the committed rows of studies (`sweeps.rows_format`), and holds every line against what can be checked."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from muvla.config import Cell
from muvla.config import train_id as hash_train
from muvla.config.serialization import from_dict
from muvla.errors import MuvlaError, located
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow, Spread, read_row
from muvla.evaluation.row_checks import find_faults
from muvla.utils.files import read_bytes, shorten
from muvla.utils.foreign import decode, parse_json
from muvla.utils.io import LINES_BYTES
from muvla.utils.provenance import provenance_id
from sweeps import rows_format as form
from sweeps.cell_results import CellResults, MeasuredFrame
from sweeps.contents import Condition

T = TypeVar("T")
Identity = tuple[str, str, str]  # train id or baseline, protocol id, intervention


@dataclass
class KeptCell:
    """A cell of the file: its study, variant and configuration, and its results."""

    study: str
    variant: str
    cell: Cell
    conditions: list[Condition]
    results: CellResults


@dataclass
class RowsFile:
    """The content of a file of committed rows.

    Attributes:
        path: the file.
        studies: name → line of the study.
        protocols: id → protocol.
        provenance: id → record.
        printed: ids of records that were taken from a printed report.
        baselines: protocol id → line of its baselines.
        rows: result → its rows.
        unsealed: results that are older than seals.
        cells: every cell.
    """

    path: Path
    studies: dict[str, form.StudyLine] = field(default_factory=dict)
    protocols: dict[str, Protocol] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    printed: set[str] = field(default_factory=set)
    baselines: dict[str, form.BaselinesLine] = field(default_factory=dict)
    rows: dict[Identity, list[EpisodeRow]] = field(default_factory=dict)
    unsealed: set[Identity] = field(default_factory=set)
    cells: list[KeptCell] = field(default_factory=list)

    def get(self, table: dict[str, T], name: str, where: str) -> T:
        """An entry of one of the tables. Raises MuvlaError for a name that no line of the file has."""
        if name not in table:
            raise refuse(f"{self.path}: {where}", name, "an identity of an earlier line")
        return table[name]

    def records(self, identities: Collection[str]) -> dict[str, dict[str, Any]]:
        """The provenance records with these ids."""
        return {identity: self.get(self.provenance, identity, "provenance") for identity in identities}

    def results_of(self, kept: KeptCell) -> CellResults:
        """The results of a cell with its rows."""
        train = kept.results.train
        rows = {}
        for condition in kept.conditions:
            if (train, *condition) not in self.rows:
                raise refuse(f"{self.path}: cell {kept.variant}", condition, "a result of the file")
            rows[condition] = self.rows[(train, *condition)]
            for row in rows[condition]:
                if row.training_seed != kept.cell.seed:
                    where = f"{self.path}: {kept.variant}, episode {row.seed}: training_seed"
                    raise refuse(where, row.training_seed, f"{kept.cell.seed}, the training seed of the cell")
        unsealed = frozenset(condition for condition in rows if (train, *condition) in self.unsealed)
        remarks = kept.results.remarks
        if kept.results.data is None:
            remarks += ("the digest of its training data was not kept, so nothing confirms its train id",)
        if self.printed & kept.results.provenance.keys():
            remarks += ("its provenance was taken from a printed report",)
        return replace(kept.results, rows=rows, unsealed=unsealed, remarks=remarks)


def refuse(where: str, got: Any, expected: str) -> MuvlaError:
    """The error of a line that does not hold."""
    return MuvlaError(
        where,
        got=got,
        expected=expected,
        remedy="restore the file with `git checkout`, or write it again with `muvla report` from the runs folder",
    )


def read_rows_file(path: Path) -> RowsFile:
    """Read a file of committed rows.

    Raises:
        MuvlaError: the file is no gzip of such lines, or a line is not as it was written: its digest, train id,
            protocol hash, provenance id or row does not hold. The error names the line.
    """
    if not path.exists():
        raise MuvlaError(
            str(path),
            got="no such file",
            expected="committed rows",
            remedy=f"`muvla report STUDY` writes {form.NAME} beside its tables, from a runs folder",
        )
    lines = _decompress(path).split(b"\n")
    if lines[-1] != b"" or len(lines) < 3:
        raise refuse(str(path), "a cut file", "a last line `end`")
    content = RowsFile(path)
    numbered = iter(enumerate(lines[:-1], start=1))
    for number, line in numbered:
        where = f"{path}:{number}"
        parsed = decode(parse_json(line, where), form.AnyLine, where)
        if (number == 1) != isinstance(parsed, form.HeadLine) or getattr(parsed, "version", 1) != form.VERSION:
            raise refuse(where, shorten(line.decode("utf-8", "replace")), f"version {form.VERSION} in line 1 alone")
        if isinstance(parsed, form.EndLine):
            _require_whole(path, lines, number, parsed)
            return content
        if isinstance(parsed, form.ResultLine):
            _add_result(content, parsed, numbered, where)
        elif number > 1:
            _add(content, parsed, where)
    raise refuse(str(path), "no last line", "a last line `end`")


def _decompress(path: Path) -> bytes:
    """The content of a gzip file, at most LINES_BYTES."""
    packed, unpacker = read_bytes(path, LINES_BYTES), zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(packed, LINES_BYTES)
    except zlib.error as error:
        raise refuse(str(path), f"no gzip file ({error})", "gzip of JSON lines") from None
    if not unpacker.eof or unpacker.unused_data:
        raise refuse(str(path), "a cut file, or more than one", f"one gzip file of at most {LINES_BYTES} bytes")
    return content


def _require_whole(path: Path, lines: list[bytes], number: int, end: form.EndLine) -> None:
    """The last line holds the digest of all bytes before it."""
    if number != len(lines) - 1 or end.lines != number - 1:
        raise refuse(f"{path}:{number}: lines", end.lines, f"{len(lines) - 2}, the lines before the last one")
    content = b"".join(line + b"\n" for line in lines[: number - 1])
    if (got := hashlib.sha256(content).hexdigest()) != end.sha256:
        raise refuse(f"{path}:{number}: sha256", got, f"{end.sha256}, the lines as they were written")


def _add_result(content: RowsFile, result: form.ResultLine, numbered: Iterator[tuple[int, bytes]], where: str) -> None:
    """Read the rows of a result, and hold each against its digest and its condition."""
    protocol = content.get(content.protocols, result.protocol, f"{where}: protocol")
    rows: list[EpisodeRow] = []
    first = 0
    for expected in result.digests:
        number, line = next(numbered, (0, b""))
        first, at = first or number, f"{content.path}:{number}"
        if form.digest(line) != expected:
            raise refuse(at, f"digest {form.digest(line)}", f"{expected}, the row as it was written")
        rows.append(read_row(parse_json(line, at), at))
        if len(rows) > 1 and rows[-1].seed <= rows[-2].seed:
            raise refuse(f"{at}: seed", rows[-1].seed, f"more than {rows[-2].seed}, the episode of the line before")
    for index, (name, got, accepted) in find_faults(rows, result.train, protocol, result.intervention):
        raise refuse(f"{content.path}:{first + index}: {name}", got, accepted)
    if len(rows) != protocol.episodes:
        raise refuse(f"{where}: digests", f"{len(rows)} rows", f"the {protocol.episodes} episodes of {protocol.id}")
    identity = result.train, result.protocol, result.intervention
    content.rows[identity] = rows
    if not result.sealed:
        content.unsealed.add(identity)


def _add(content: RowsFile, line: form.Line, where: str) -> None:
    """Add a line that has no rows."""
    match line:
        case form.StudyLine():
            content.studies[line.name] = line
        case form.ProvenanceLine():
            if not line.printed and (got := provenance_id(line.record)) != line.id:
                raise refuse(f"{where}: record", f"content {got}", f"content {line.id}, its id")
            content.provenance[line.id] = line.record
            content.printed |= {line.id} if line.printed else set()
        case form.ProtocolLine():
            with located(where):
                protocol = from_dict(Protocol, line.content)
            if (protocol.hash, protocol.id) != (line.hash, line.id):
                raise refuse(f"{where}: content", f"{protocol.id} {protocol.hash}", f"{line.id} {line.hash}")
            content.protocols[line.id] = protocol
        case form.BaselinesLine():
            content.baselines[line.protocol] = line
        case form.CellLine():
            content.cells.append(_kept(content, line, where))
        case form.CurveLine() | form.MeasurementLine() | form.ChunksLine():
            if not content.cells:
                raise refuse(where, "a line of no cell", "the line of a cell before")
            last = content.cells[-1]
            last.results = _with(last.results, line)


def _kept(content: RowsFile, line: form.CellLine, where: str) -> KeptCell:
    with located(where):
        cell = from_dict(Cell, line.cell)
    if line.data is not None and (got := hash_train(cell, line.data, line.start)) != line.train:
        raise refuse(f"{where}: train", line.train, f"{got}, the hash of configuration and data")
    results = CellResults(
        train=line.train,
        state=line.state,
        never_fired=tuple(line.never_fired),
        provenance=content.records(line.provenance),
        seconds=line.seconds,
        damage=tuple(line.damage),
        data=line.data,
        start=line.start,
        remarks=tuple(line.remarks),
    )
    return KeptCell(line.study, line.variant, cell, list(line.conditions), results)


def _with(results: CellResults, line: form.CurveLine | form.MeasurementLine | form.ChunksLine) -> CellResults:
    match line:
        case form.CurveLine():
            return replace(results, curve=line.columns)
        case form.MeasurementLine():
            frame = MeasuredFrame(line.csv, line.provenance)
            return replace(results, measurements=results.measurements | {(line.probe, line.protocol): frame})
        case form.ChunksLine():
            spreads = [Spread(*values) for values in zip(line.n, line.mean, line.sd, strict=True)]
            by_step = dict(zip(line.since, spreads, strict=True))
            changes = results.chunk_changes | {(line.protocol, line.intervention): by_step}
            return replace(results, chunk_changes=changes)
