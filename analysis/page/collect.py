"""The content of a page from the cells of a study, finished or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.baselines import baseline_frame, compared
from analysis.contrasts import contrast_frame
from analysis.frames import tidy
from analysis.intervention_frames import grid_frame, grids, labelled, measurement_frames, paired_frame, undefined_pairs
from analysis.page.content import CellState, Content, Filmstrip, RecordedEpisode, with_labels
from analysis.page.files import beside
from analysis.published.beside import published_for
from analysis.report.checks import mixed
from analysis.report.contents import Report
from analysis.time_to_learn import update_frame
from analysis.verdicts import verdict_frame
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import CellRecords
from sweeps.costs import HEADER


def content_of(
    cells: list[CellRecords],
    report: Report,
    folder: Path,
    progress: Mapping[str, tuple[int, str]] | None = None,
    filmstrip: Filmstrip | None = None,
    episodes: tuple[RecordedEpisode, ...] = (),
    written: str = "",
) -> Content:
    """The content of a page.

    Args:
        cells: every cell of the plan, also those without a result.
        report: texts and inputs besides the rows.
        folder: folder of the page, whose files it links to.
        progress: train id → (update of the newest checkpoint, error of a failed cell).
        filmstrip: pictures of the task.
        episodes: recorded episodes.
        written: time, in words.
    """
    labels = {label: cell.variant for label, cell in labelled(cells)}
    by_cell = {(cell.variant, cell.cell.budget.updates): label for label, cell in labelled(cells)}
    rates, taken = tidy(cells), {(each.id, each.protocol): each for cell in cells for each in cell.measurements}
    baselines = {p: compared(each, cells, p) for p, each in report.baselines.items()}
    is_empty, updates = rates.empty, update_frame(cells, report.baselines)
    return Content(
        name=report.name,
        title=report.title,
        notes=report.notes,
        labels=labels,
        states=tuple(_states(cells, progress or {})),
        rates=with_labels(rates, by_cell),
        pairs=paired_frame(cells),
        undefined=undefined_pairs(cells),
        contrasts=pd.DataFrame() if is_empty else contrast_frame(rates, report.contrasts, report.pairs, updates),
        updates=updates,
        verdicts=pd.DataFrame() if is_empty else verdict_frame(cells, report.predictions, report.registrations),
        baselines=baseline_frame(baselines),
        curves=curve_frame(cells),
        costs=pd.DataFrame(report.costs, columns=HEADER),
        published=published_lines(rates, report.protocols),
        grids=tuple((grid, frame) for id, grid in grids(cells).items() if len(frame := grid_frame(cells, id))),
        measurements=tuple((taken[key], frame) for key, frame in measurement_frames(cells).items()),
        primary=report.contrasts.primary,
        planned_contrasts=len(report.pairs),
        predictions=len(report.predictions),
        differences=report.differences,
        coverage=report.coverage,
        filmstrip=filmstrip,
        episodes=episodes,
        commands=tuple(report.command.split(" && ")),
        files=beside(folder),
        facts=tuple(facts(cells)),
        mixes=tuple(mixed(cells)),
        written=written,
    )


def _states(cells: list[CellRecords], progress: Mapping[str, tuple[int, str]]) -> Iterable[CellState]:
    for label, cell in labelled(cells):
        updates, failure = progress.get(cell.train, (0, ""))
        problem = "; ".join(text for text in (failure, *cell.damage) if text)
        yield CellState(label, cell.cell.seed, cell.state, updates, cell.cell.budget.updates, problem)


def published_lines(rates: pd.DataFrame, protocols: Iterable[Protocol]) -> pd.DataFrame:
    """The published success rates on the tasks of these rates: protocol, label, value, n, source, differs."""
    if rates.empty:
        return pd.DataFrame()
    frames = []
    for protocol in rates["protocol"].drop_duplicates():
        lines = published_for(protocol, protocols)
        facts = {"label": lines["model"] + " (" + lines["paper"] + ")", "value": lines["rate"]}
        facts |= {"n": lines["n"], "source": lines["source"], "differs": lines["differences"]}
        frames.append(pd.DataFrame(facts).assign(protocol=protocol))
    return pd.concat(frames, ignore_index=True)


def curve_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """The numbers of every training log: columns label, seed, update, quantity, value."""
    frames = []
    for label, cell in labelled(cells):
        if cell.curve:
            long = pd.DataFrame(cell.curve).melt("update", var_name="quantity").dropna()
            frames.append(long.assign(label=label, seed=cell.cell.seed))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def facts(cells: list[CellRecords]) -> Iterable[tuple[str, str]]:
    """(name, value) of the origin of the rows: code, hardware, packages, wall time."""
    records: list[dict[str, Any]] = [record for cell in cells for record in cell.provenance.values()]
    if not records:
        return
    commits = {r["git"]["commit"][:12] + (" with changes" if r["git"]["dirty"] else "") for r in records if r["git"]}
    yield "code version", ", ".join(sorted({record["code"] for record in records}))
    if commits:
        yield "commit", ", ".join(sorted(commits))
    yield "processor", "; ".join(sorted({f"{r['processor']}, {r['device']}, {r['threads']} threads" for r in records}))
    yield "packages", ", ".join(sorted({f"{name} {v}" for r in records for name, v in r["packages"].items() if v}))
    if simulators := sorted({record["simulator"] for record in records if record["simulator"]}):
        yield "simulator", ", ".join(simulators)
    for what in ("training", "evaluation"):
        yield f"{what} time", f"{sum(cell.seconds[what] for cell in cells) / 60:.0f} minutes, summed over cells"
