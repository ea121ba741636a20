"""A study with results that no process computed, and its file of committed rows."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

from helpers.rows import PROVENANCE, row
from muvla.evaluation.records import Baselines, Spread, result_id
from muvla.utils.provenance import provenance_id
from sweeps.cell_results import CellResults, MeasuredFrame
from sweeps.cells import StudyCell
from sweeps.rows_writer import write_rows
from sweeps.study import Study
from sweeps.study_results import StudyResults

DATA = "d" * 64  # digest of the training data
RECORD = PROVENANCE | {"note": "of a test"}
PROVENANCE_ID = provenance_id(RECORD)


def result_rows(train, protocol, intervention, right=12, seed=0):
    """A row for every episode of the protocol; the first `right` ones succeed."""
    return [
        dataclasses.replace(
            row(protocol.seed + i, 0 if i < right else 1, kind=intervention),
            result=result_id(train, protocol, intervention),
            train=train,
            training_seed=seed,
            task=protocol.task.name,
            protocol=protocol.id,
            protocol_hash=protocol.hash,
            first_success_step=4 if i < right else None,
            update=protocol.update,
            provenance=PROVENANCE_ID,
        )
        for i in range(protocol.episodes)
    ]


def cell_results(study: Study, item: StudyCell, train: str, right: int = 12) -> CellResults:
    """Results of every condition that the study declares for the cell."""
    rows = {
        (protocol.id, name): result_rows(train, protocol, name, right if name == "none" else 7, item.cell.seed)
        for protocol, name in study.conditions(item.cell)
    }
    changes = {at: {0: Spread(20, 0.25, 0.5), 1: Spread(1, 0.125, None)} for at in rows if at[1] != "none"}
    frames = {
        (each.id, each.protocol.id): MeasuredFrame("seed_of,value\n1,4\n", PROVENANCE_ID)
        for each in study.measurements_of(item.cell)
    }
    return CellResults(
        train,
        "done",
        rows,
        provenance={PROVENANCE_ID: RECORD},
        seconds={"training": 60.0, "evaluation": 30.0},
        measurements=frames,
        chunk_changes=changes,
        data=DATA,
        curve={"update": [1.0, 2.0], "loss": [0.5, None]},
    )


def study_results(study: Study, train_of, right=lambda item: 12) -> StudyResults:
    """The results of every cell of a study, and of its baselines.

    Args:
        study: the study.
        train_of: from a cell of the study to its train id.
        right: from a cell of the study to its successes without intervention.
    """
    cells = tuple((item, cell_results(study, item, train_of(item), right(item))) for item in study.cells())
    protocol = study.protocols[0]
    rows = {"expert": result_rows("expert", protocol, "none", protocol.episodes, seed=None)}
    baselines = Baselines(rows, {"random": "not run"}, provenance={PROVENANCE_ID: RECORD})
    return StudyResults(study, cells, {protocol.id: baselines}, ("Pairs: K=8 0.67",))


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def write_lines(file: Path, lines: list[dict], seal: bool = False) -> None:
    """Write the lines of a file; with `seal`, as a program that keeps the last digest up to date."""
    texts = [json.dumps(line).encode() for line in lines]
    if seal:
        content = b"".join(text + b"\n" for text in texts[:-1])
        end = {"line": "end", "lines": len(texts) - 1, "sha256": hashlib.sha256(content).hexdigest()}
        texts[-1] = json.dumps(end).encode()
    file.write_bytes(gzip.compress(b"".join(text + b"\n" for text in texts), mtime=0))


def commit(folder: Path, results: StudyResults) -> Path:
    """Write the rows of a study below `folder`."""
    file = folder / "results" / "rows.jsonl.gz"
    write_rows(file, [results])
    return file
