"""Writes the committed rows of studies (`sweeps.rows_format`)."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from muvla.config.serialization import to_dict
from muvla.evaluation.records import Baselines, EpisodeRow
from muvla.utils.io import write_atomically
from sweeps import rows_format as form
from sweeps.cell_results import CellResults
from sweeps.cells import StudyCell
from sweeps.study_results import StudyResults


def write_rows(file: Path, studies: Sequence[StudyResults], printed: Iterable[str] = ()) -> None:
    """Write the results of studies to one file.

    Args:
        file: the file, by convention `results/rows.jsonl.gz` in the study's folder.
        studies: the studies with their results.
        printed: ids of provenance records that were taken from a printed report.
    """
    lines = [_dump(line) for line in _lines(studies, frozenset(printed))]
    content = b"".join(line + b"\n" for line in lines)
    end = form.EndLine(len(lines), hashlib.sha256(content).hexdigest())
    write_atomically(file, gzip.compress(content + _dump(end) + b"\n", mtime=0))


def _dump(line: Any) -> bytes:
    """The line as the run folder writes a row: equal rows have equal bytes, and so equal digests."""
    return json.dumps(msgspec.to_builtins(line)).encode()


def _lines(studies: Sequence[StudyResults], printed: frozenset[str]) -> Iterator[Any]:
    """Every line but the last. A result that several studies share is written once."""
    yield form.HeadLine(form.VERSION)
    records: dict[str, dict[str, Any]] = {}
    for results in studies:
        for each in (*(cell for _, cell in results.cells), *results.baselines.values()):
            records |= each.provenance
    for identity in sorted(records):
        yield form.ProvenanceLine(identity, records[identity], identity in printed)
    protocols = {protocol.id: protocol for results in studies for protocol in results.study.every_protocol}
    for id in sorted(protocols):
        yield form.ProtocolLine(id, protocols[id].hash, to_dict(protocols[id]))
    written: set[tuple[str, str, str]] = set()
    for results in studies:
        yield from _study_lines(results, written)


def _study_lines(results: StudyResults, written: set[tuple[str, str, str]]) -> Iterator[Any]:
    study = results.study
    yield form.StudyLine(study.name, study.title, list(results.coverage), [list(row) for row in results.costs])
    for protocol, baselines in results.baselines.items():
        yield from _baseline_lines(protocol, baselines, written)
    for item, cell in results.cells:
        yield from _cell_lines(study.name, item, cell)
        for (protocol, intervention), rows in cell.rows.items():
            sealed = (protocol, intervention) not in cell.unsealed
            yield from _result_lines((cell.train, protocol, intervention), rows, sealed, written)


def _baseline_lines(protocol: str, baselines: Baselines, written: set[tuple[str, str, str]]) -> Iterator[Any]:
    present, records = list(baselines.rows), sorted(baselines.provenance)
    yield form.BaselinesLine(protocol, present, baselines.absent, records, list(baselines.damage))
    for name, rows in baselines.rows.items():
        yield from _result_lines((name, protocol, "none"), rows, name not in baselines.unsealed, written)


def _cell_lines(study: str, item: StudyCell, cell: CellResults) -> Iterator[Any]:
    yield form.CellLine(
        study,
        item.variant,
        cell.train,
        cell.state,
        to_dict(item.cell),
        cell.data,
        cell.start,
        list(cell.rows),
        list(cell.never_fired),
        sorted(cell.provenance),
        cell.seconds,
        list(cell.damage),
        list(cell.remarks),
    )
    if cell.curve:
        yield form.CurveLine(cell.curve)
    for (probe, protocol), frame in cell.measurements.items():
        yield form.MeasurementLine(probe, protocol, frame.provenance, frame.csv)
    for (protocol, intervention), by_step in cell.chunk_changes.items():
        n, mean, sd = ([getattr(change, name) for change in by_step.values()] for name in ("n", "mean", "sd"))
        yield form.ChunksLine(protocol, intervention, list(by_step), n, mean, sd)


def _result_lines(
    identity: tuple[str, str, str], rows: list[EpisodeRow], sealed: bool, written: set[tuple[str, str, str]]
) -> Iterator[Any]:
    """The result and its rows; nothing for a result that is written already."""
    if identity in written:
        return
    written.add(identity)
    plain = [row.plain() for row in sorted(rows, key=lambda row: row.seed)]
    yield form.ResultLine(*identity, sealed, [form.digest(_dump(row)) for row in plain])
    yield from plain
