"""The register of a study's predictions: `registered.jsonl` in its results folder, written before its first row.

A line holds the predictions of a study at one time, with their digest, and says whether the study had rows then. The
register tells predictions that were written before the rows from later ones:

| status | meaning |
|---|---|
| `registered` | the prediction was in the register before the study had a row |
| `post hoc` | the register is older than the prediction, and the study had rows when the prediction came |
| `not registered` | no register tells: the study had rows before it had a register |
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from muvla.errors import DiskError, MuvlaError
from muvla.utils.foreign import decode
from muvla.utils.io import append_line, hash_json, read_lines
from muvla.utils.locks import locked
from sweeps.committed import results_folder
from sweeps.ledger import Ledger
from sweeps.predictions import Prediction
from sweeps.rows_format import NAME as ROWS
from sweeps.rows_reader import read_rows_file
from sweeps.study import Study

NAME = "registered.jsonl"
RATES = "cells.csv"  # of a report
NOT_REGISTERED, POST_HOC, TO_COME = "not registered", "post hoc", "registered when the sweep starts"
DIGITS = 64


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A line of the register."""

    study: str
    utc: str  # for example 2026-11-28T21:20:05Z
    rows: bool  # the study had rows
    predictions: list[dict[str, Any]]
    sha256: str  # of the predictions


def spare_file(runs: Path, study: Study) -> Path:
    """The register in the runs folder, for a study whose folder cannot be written."""
    return runs / "registered" / f"{study.name}.jsonl"


def read_register(files: Iterable[Path], study: Study) -> list[Entry]:
    """The entries of a study, oldest first.

    Raises:
        MuvlaError: a line is no entry, or its predictions are not those of its digest.
    """
    entries = []
    for file in files:
        for number, line in enumerate(read_lines(file), start=1):
            entry = decode(line, Entry, f"{file}:{number}")
            if (got := hash_json(entry.predictions, DIGITS)) != entry.sha256:
                raise MuvlaError(
                    f"{file}:{number}: sha256",
                    got=got,
                    expected=f"{entry.sha256}, the predictions as they were registered",
                    remedy="restore the line with `git checkout`: a register is never edited",
                )
            entries += [entry] if entry.study == study.name else []
    return sorted(entries, key=lambda entry: entry.utc)


def register(study: Study, path: Path, runs: Path, has_rows: bool, say: Callable[[str], None] = print) -> None:
    """Register the predictions of a study, unless the last entry holds the same ones.

    A study without predictions is registered too, so that a later prediction is known to be later. Two sweeps at once
    may write one entry each; both hold.

    Args:
        study: the study as its file declares it.
        path: file or folder of the study.
        runs: the runs folder; it holds the register where the results folder cannot be written.
        has_rows: the study has a row already.
        say: called with the line of output.
    """
    files = results_folder(path) / NAME, spare_file(runs, study)
    predictions = [_plain(prediction) for prediction in study.predictions]
    with locked(runs / f".registered-{study.name}", wait=True):
        entries = read_register(files, study)
        if entries and entries[-1].predictions == predictions:
            return
        utc = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = msgspec.to_builtins(Entry(study.name, utc, has_rows, predictions, hash_json(predictions, DIGITS)))
        try:
            append_line(files[0], entry)
            written = files[0]
        except DiskError as error:
            warnings.warn(f"the predictions are registered in {files[1]}: {error}", stacklevel=2)
            append_line(files[1], entry)
            written = files[1]
    if predictions:
        say(f"{len(predictions)} predictions registered at {utc} in {written}; commit this file before the rows.")


def read_registrations(study: Study, path: Path, runs: Path, has_rows: bool) -> dict[Prediction, str]:
    """The status of every prediction of a study.

    Args:
        study: the study, also narrowed to some of its variants.
        path: file or folder of the study.
        runs: the runs folder.
        has_rows: the study has rows now.
    """
    entries = read_register((results_folder(path) / NAME, spare_file(runs, study)), study)
    return {prediction: _status(prediction, entries, has_rows) for prediction in study.predictions}


def has_rows(study: Study, path: Path, ledger: Ledger) -> bool:
    """True if a cell of the study has a row in the runs folder, or if results of the study are committed.

    Committed results may be older than committed rows, so tables of rates count as rows.
    """
    committed = results_folder(path) / ROWS
    if not committed.exists() and committed.with_name(RATES).exists():
        return True
    try:
        if committed.exists() and any(cell.study == study.name for cell in read_rows_file(committed).cells):
            return True
    except MuvlaError:  # rows that do not hold are rows all the same
        return True
    if not ledger.has_data(study):  # a train id needs the data
        return False
    return any(any(entry.run.rows.glob("*.jsonl")) for entry in ledger.entries(study, ledger.opened(study)))


def _status(prediction: Prediction, entries: list[Entry], has_rows: bool) -> str:
    for index, entry in enumerate(entries):
        if any(_holds(registered, prediction) for registered in entry.predictions):
            if not entry.rows:
                return f"registered {entry.utc}"
            return POST_HOC if index else NOT_REGISTERED
    if not has_rows:
        return TO_COME
    return POST_HOC if entries else NOT_REGISTERED


def _plain(prediction: Prediction) -> dict[str, Any]:
    return dataclasses.asdict(prediction) | {"variants": list(prediction.variants)}


def _holds(registered: dict[str, Any], prediction: Prediction) -> bool:
    """True if the registered prediction is this one, about the same variants or more."""
    plain = _plain(prediction)
    variants = set(plain.pop("variants"))
    others = {name: value for name, value in registered.items() if name != "variants"}
    return others == plain and variants <= set(registered.get("variants", ()))


def registration_line(statuses: dict[Prediction, str]) -> str:
    """For example "Predictions: 3, of them 2 registered 2026-11-28T21:20:05Z, 1 post hoc"; "" without predictions."""
    if not statuses:
        return ""
    counts: dict[str, int] = {}
    for status in statuses.values():
        counts[status] = counts.get(status, 0) + 1
    return f"Predictions: {len(statuses)}, of them {', '.join(f'{n} {status}' for status, n in counts.items())}"
