"""Episode rows, cells and reports for tests of the analysis."""

from __future__ import annotations

import dataclasses

from analysis.report import report
from muvla.config import canonical
from muvla.config.serialization import replace
from muvla.evaluation.records import CellRecords, EpisodeRow

PROVENANCE = {
    "code": "c0de",
    "processor": "P",
    "device": "cpu",
    "threads": 1,
    "simulator": None,
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "packages": {"torch": "2.13"},
}


def row(seed, choice, target=0, error=None, kind="none"):
    measured = error is None
    return EpisodeRow(
        result="r",
        train="t",
        training_seed=0,
        task="RecallPosition3-v0",
        group="recall",
        protocol="p@1",
        protocol_hash="h",
        intervention=kind,
        seed=seed,
        attempt=1,
        target=target if measured else None,
        choice=choice if measured else None,
        cue_length=1,
        delay_length=1,
        first_decision_step=2,
        success_once=choice == target if measured else None,
        success_at_end=None,
        first_success_step=None,
        steps=5,
        error=error,
        seconds=0.1,
        environment_seconds=0.05,
        provenance="x",
    )


def records(base, variant, change, seed, correct, wrong, untouched, errors=0, kinds=("none", "zero")):
    n = 0
    rows = []
    for count, choice in ((correct, 0), (wrong, 1), (untouched, -1)):
        rows += [row(n + i, choice) for i in range(count)]
        n += count
    rows += [row(n + i, 0, error="RuntimeError: lost") for i in range(errors)]
    cell = canonical(replace(base, {**change, "seed": seed}))
    kinds = kinds if cell.memory.kind != "none" else ("none",)
    by_kind = {("p@1", k): [dataclasses.replace(r, intervention=k) for r in rows] for k in kinds}
    seconds = {"training": 60.0, "evaluation": 30.0}
    return CellRecords(variant, cell, f"{variant}{seed}", "done", by_kind, {"x": PROVENANCE}, {"p@1": 1 / 3}, seconds)


def write(cells, tmp_path, results=None, **changes):
    said = []
    told = {
        "name": "small",
        "title": "a study",
        "command": "muvla sweep x",
        "notes": "A note.",
        "coverage": ("Pairs: K=8 0.67",),
    }
    frame = report.write_report(cells, tmp_path / "out", report.Report(**(told | changes)), results, said.append)
    return frame, "\n".join(said)


def over(base, variant, change, seed, rates, kinds=("none",)):
    """Ten episodes by protocol, with these successes; None: it has no result, a negative number: all are errors."""
    cell = records(base, variant, change, seed, 1, 0, 0)
    rows = {}
    for name, rate in rates.items():
        for kind in kinds if rate is not None else ():
            rows[name, kind] = [
                dataclasses.replace(
                    row(i, 0 if i < rate else 1, error="RuntimeError: x" if rate < 0 or i == rate == 9 else None),
                    protocol=name,
                    intervention=kind,
                )
                for i in range(10)
            ]
    chance = dict.fromkeys(rates, 1 / 3)
    return dataclasses.replace(cell, rows=rows, chance=chance, sets={"two@1": ("a@1", "b@1")})
