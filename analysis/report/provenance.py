"""The first paragraphs of a report: command, hardware, versions, notes and differences between variants."""

from __future__ import annotations

from typing import Any

import pandas as pd

from muvla.evaluation.records import CellRecords
from muvla.utils.code_version import EQUAL_CODE


def provenance_lines(
    cells: list[CellRecords],
    frame: pd.DataFrame,
    command: str,
    mixes: list[str],
) -> list[str]:
    """Markdown lines on how the numbers were made.

    Args:
        cells: the report's cells.
        frame: their tidy frame.
        command: the command that made them.
        mixes: parts of provenance in which the cells differ.
    """
    records = [record for cell in cells for record in cell.provenance.values()]
    seeds = ", ".join(map(str, sorted(frame["seed"].unique())))
    first = (
        f"Command: `{command}`. Training seeds: {seeds}. "
        f"Episodes that ended in an error, in no rate: {int(frame['errors'].sum())}."
    )
    if silent := _never_fired(cells):
        first += f" Never fired in at least one cell, so without a result there: {', '.join(silent)}."
    sentences = [f"Hardware: {'; '.join(sorted({_hardware(record) for record in records}))}."]
    if systems := sorted({f"Python {r['python']}, {r['platform']}" for r in records if "python" in r}):
        sentences.append(f"Systems: {'; '.join(systems)}.")
    if simulators := sorted({record["simulator"] for record in records if record["simulator"]}):
        sentences.append(f"Simulator: {', '.join(simulators)}.")
    minutes = {what: sum(cell.seconds[what] for cell in cells) / 60 for what in ("training", "evaluation")}
    sentences.append(
        f"Wall time summed over {len(cells)} cells: training {minutes['training']:.0f} min, "
        f"evaluation {minutes['evaluation']:.0f} min."
    )
    sentences.append(f"Code version {_versions(records)}.")
    if unsealed := sum(cell.unsealed for cell in cells):
        sentences.append(f"Not sealed, because they are older than seals: {unsealed} results.")
    sentences += _remarks(cells)
    if mixes:
        sentences.append(f"Mixed by --mix-provenance: {'; '.join(mixes)}.")
    return [first, "", " ".join(sentences), ""]


def _remarks(cells: list[CellRecords]) -> list[str]:
    """A sentence for each remark, with the cells that it is about."""
    by_text: dict[str, list[str]] = {}
    for cell in cells:
        for remark in cell.remarks:
            by_text.setdefault(remark, []).append(f"{cell.variant}, seed {cell.cell.seed}")
    return [f"{'; '.join(labels)}: {text}." for text, labels in by_text.items()]


def _hardware(record: dict[str, Any]) -> str:
    text = f"{record['processor']}, {record['device']}, {record['threads']} thread(s) per cell"
    if record.get("compiled", False):
        text += ", compiled"
    if "ranks" in record:
        text += f", trained by {record['ranks']} ranks"
    return text


def _versions(records: list[dict[str, Any]]) -> str:
    packages = sorted({f"{name} {version}" for r in records for name, version in r["packages"].items() if version})
    commits = sorted(
        {r["git"]["commit"][:12] + (" with changes" if r["git"]["dirty"] else "") for r in records if r["git"]}
    )
    codes = sorted({record["code"] for record in records})
    text = ", ".join(codes)
    if commits:
        text += f" (commit {', '.join(commits)})"
    for code in codes:
        if code in EQUAL_CODE and len(codes) > 1:
            text += f"; {code} counts as equal: {EQUAL_CODE[code]}"
    return f"{text}; {', '.join(packages)}"


def _never_fired(cells: list[CellRecords]) -> list[str]:
    conditions = {(p.protocol, p.intervention) for c in cells for g in c.grids for p in g.points if p.never_fired}
    conditions |= {condition for cell in cells for condition in cell.never_fired}
    return sorted(f"`{name}` under {protocol}" for protocol, name in conditions)
