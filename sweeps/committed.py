"""The committed results of a study: `results/rows.jsonl.gz` in the folder of its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from muvla.config import canonical
from muvla.errors import MuvlaError
from muvla.evaluation.baselines import memoryless_ideal
from muvla.evaluation.protocol import Protocol, unbounded
from muvla.evaluation.records import Baselines
from sweeps.cell_results import CellResults
from sweeps.cells import StudyCell
from sweeps.difference import difference
from sweeps.loader import load_study
from sweeps.rows_format import NAME
from sweeps.rows_reader import KeptCell, RowsFile, read_rows_file
from sweeps.study import Study
from sweeps.study_results import StudyResults

FOLDER = "results"


def results_folder(path: Path) -> Path:
    """The folder of the committed results of a study, given its file or folder.

    `study.py` has `results`. Another file, `mikasa.py`, has `results-mikasa` where this folder exists; else it shares
    `results` with the other studies of its folder.
    """
    if path.is_dir():
        return path / FOLDER
    of_file = path.with_name(f"{FOLDER}-{path.stem}")
    return of_file if path.stem != "study" and of_file.is_dir() else path.with_name(FOLDER)


def load_results(path: Path) -> StudyResults:
    """The committed results of a study, without any runs folder.

    Args:
        path: file or folder of the study, for example `experiments/recall_quick`.

    Raises:
        MuvlaError: the study has no committed rows, or they do not hold.

    Example:
        frame = analysis.frames.tidy(load_results(Path("experiments/recall_quick")).records)
    """
    return committed_results(load_study(path), read_rows_file(results_folder(path) / NAME))


def committed_results(study: Study, content: RowsFile) -> StudyResults:
    """The results of a study in a file of committed rows.

    A cell of the study that the file lacks is "planned". A condition that the file lacks makes its cell "partial".

    Args:
        study: the study, also narrowed to some of its variants or seeds.
        content: a file of committed rows.

    Raises:
        MuvlaError: the file holds another study, or other protocols or cells under the names of this study.
    """
    if study.name not in content.studies:
        raise MuvlaError(
            f"{content.path}: study",
            got=study.name,
            expected=f"one of {', '.join(content.studies)}",
            remedy="name the study that these rows belong to",
        )
    for protocol in study.every_protocol:
        _require_same_protocol(content, protocol)
    kept = {(cell.variant, cell.cell.seed): cell for cell in content.cells if cell.study == study.name}
    cells = tuple((item, _results(content, study, item, kept)) for item in study.cells())
    line = content.studies[study.name]
    costs = tuple(tuple(row) for row in line.costs if row and row[0] in study.variants)
    baselines = {protocol.id: _baselines(content, protocol) for protocol in study.baseline_protocols}
    return StudyResults(study, cells, baselines, tuple(line.coverage), costs)


def _require_same_protocol(content: RowsFile, protocol: Protocol) -> None:
    written = content.protocols.get(protocol.id, protocol)
    if written.hash != protocol.hash:
        raise MuvlaError(
            f"{content.path}: protocol {protocol.id}",
            got=f"content {written.hash}",
            expected=f"{protocol.hash}, the protocol of the study",
            remedy="give the changed protocol a new version, or restore the study file of these rows",
        )


def _results(content: RowsFile, study: Study, item: StudyCell, kept: dict[tuple[str, int], KeptCell]) -> CellResults:
    of_cell = kept.get((item.variant, item.cell.seed))
    if of_cell is None:
        return CellResults()
    if changed := difference(of_cell.cell, item.cell):
        name, (written, now) = next(iter(changed.items()))
        raise MuvlaError(
            f"{content.path}: {item.label}: {name}",
            got=written,
            expected=f"{now}, as in the study",
            remedy="restore the study file of these rows, or sweep again and write the rows again with `muvla report`",
        )
    results = content.results_of(of_cell)
    conditions = {(protocol.id, name) for protocol, name in study.conditions(canonical(item.cell))}
    scheduled = {(each.id, each.protocol.id) for each in study.measurements_of(item.cell)}
    lacks = conditions - results.rows.keys() - set(results.never_fired) or scheduled - results.measurements.keys()
    return replace(results, state="partial") if lacks and results.state == "done" else results


def _baselines(content: RowsFile, protocol: Protocol) -> Baselines:
    line = content.baselines.get(protocol.id)
    ideal, why = memoryless_ideal(protocol), unbounded(protocol)
    if line is None:
        return Baselines(absent={"random": "not run", "expert": "not run"}, ideal=ideal, unbounded=why)
    rows = {}
    for name in line.present:
        identity = name, protocol.id, "none"
        if identity in content.rows:
            rows[name] = content.rows[identity]
    unsealed = frozenset(name for name in rows if (name, protocol.id, "none") in content.unsealed)
    records = content.records(line.provenance)
    return Baselines(rows, line.absent, ideal, records, why, damage=tuple(line.damage), unsealed=unsealed)
