"""The facts of studies and cells for trackers, read from the run folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muvla.config import Cell, canonical
from muvla.config.serialization import flatten
from muvla.errors import MuvlaError
from muvla.utils.code_version import CODE_VERSION
from muvla.utils.io import read_lines
from muvla.utils.provenance import git_commit
from sweeps.ledger import Entry
from sweeps.study import Study
from sweeps.tracking.base import CellFacts, Point, StudyFacts

METRICS = ("touch_rate", "choice_accuracy", "success_rate")
PLAIN = ("run.json", "failure.json", "train.jsonl", "timings.jsonl", "log.txt")
FOLDERS = ("rows", "provenance", "probes", "videos")


def study_facts(study: Study, root: Path) -> StudyFacts:
    """The study, with the folder of its report where one was written.

    Args:
        study: the study.
        root: folder of all runs.
    """
    page = root / "report" / study.name
    return StudyFacts(study.name, study.title, study.notes, CODE_VERSION, git_commit(), page if page.is_dir() else None)


def cell_facts(entry: Entry) -> CellFacts:
    """The cell as its run folder is now."""
    contents, run, cell = entry.read(), entry.run, canonical(entry.item.cell)
    files = tuple(_files(run.folder))
    times = [file.stat().st_mtime for file in (*files, *run.folder.glob("checkpoints/*/*")) if file.exists()]
    began, ended = _began(run.folder, times), max(times, default=0.0)
    results = {
        f"{protocol.replace('@', '.v')}/{intervention}/{metric}": value
        for (protocol, intervention), summary in entry.summaries().items()
        for metric in METRICS
        if (value := getattr(summary, metric)) is not None
    }
    return CellFacts(
        train=run.train,
        start=run.set_aside,
        label=entry.item.label,
        state=entry.state_of(contents),
        factors=factors_of(entry.item.variant, cell),
        fields=flatten(cell),
        began=began,
        ended=ended,
        curve=tuple(curve_of(run.folder / "train.jsonl", cell)),
        results=results,
        files=files,
        data=_data(entry),
        error=(contents.failure or {}).get("error", ""),
    )


def factors_of(variant: str, cell: Cell) -> dict[str, str]:
    """The values that a reader compares first; `–` where the cell has no such value."""
    memory = cell.memory
    return {
        "variant": variant,
        "seed": str(cell.seed),
        "K": str(cell.truncation) if memory.gradient_crosses else "–",
        "m": str(memory.tokens),
        "alpha": str(getattr(memory, "alpha", "–")) if memory.recurs else "–",
        "labels": cell.data.labels,
        "H": str(cell.model.chunk),
    }


def curve_of(log: Path, cell: Cell) -> Iterator[Point]:
    """The training log with the time of every line.

    The last line was written when the file was changed last. The time of an earlier line follows from the frames
    between the lines and the logged speed.
    """
    rows = read_lines(log)
    last = log.stat().st_mtime if rows else 0.0
    for row in rows:
        frames = (rows[-1]["update"] - row["update"]) * cell.budget.frames_per_update
        speed = rows[-1].get("frames_per_second") or 0
        yield Point(row["update"], last - (frames / speed if speed else 0), dict(readings(row)))


def readings(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of every number in a line of train.jsonl.

    Entries of a list or table are named `training-detail/name/entry`. MLflow then draws them below the loss. Absent
    entries are left out.
    """
    for key, value in row.items():
        entries = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else None
        if entries is None and key != "update":
            yield key, float(value)
        for entry, number in entries or ():
            if number is not None:
                yield f"training-detail/{key}/{entry}", float(number)


def _files(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in PLAIN if (folder / name).exists())
    for name in FOLDERS:
        yield from sorted(file for file in (folder / name).glob("*") if file.is_file() and file.name[0] != ".")


def _began(folder: Path, times: list[float]) -> float:
    """Time of the first write: `run.json` is written first, and is rewritten where the data move."""
    first = folder / "run.json"
    return min([*times, *([first.stat().st_mtime] if first.exists() else [])], default=0.0)


def _data(entry: Entry) -> tuple[str, str]:
    try:
        meta = entry.run.meta
    except MuvlaError:  # nothing is written yet, or the file is damaged
        return "", ""
    return meta.data if isinstance(meta.data, str) else " + ".join(meta.data), meta.sha256
