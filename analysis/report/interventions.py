"""The part of a report on interventions and probes: paired differences, shams, verdicts, grids and readings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import causal, tables
from analysis.by_seed import QUANTITY_TITLES, quantities_of
from analysis.figures import grids as gridfigures
from analysis.figures import interventions as probefigures
from analysis.figures import measurements as readingfigures
from analysis.frames import file_names, file_stems
from analysis.paired import CONFIDENCE, MARGIN
from muvla.evaluation.records import CellRecords
from muvla.utils.io import write_atomically
from sweeps.predictions import Prediction

WORDS = (
    f"Paired: with the intervention less without it, over the same episodes of one trained policy, with the "
    f'{CONFIDENCE:.0%} interval of Newcombe\'s method 10 and the number of pairs; "null" is an interval inside '
    f"±{MARGIN:.2f}. docs/causality.md defines quantities, verdicts and how training seeds combine."
)


def probe_block(
    cells: list[CellRecords],
    frame: pd.DataFrame,
    out: Path,
    title: str,
    predictions: tuple[Prediction, ...],
    save: Callable,
    links_from: Path,
    more: str,
    say: Callable[[str], None],
) -> list[str]:
    """Markdown, with the CSV files, tables and figures written to `out`; nothing where a study has no intervention and
    no probe. `frame` is that of paired differences; `save` writes a figure under a name; `more` is the link to what has
    no room here."""
    block = _predictions(cells, out, predictions, say)

    def draw(figure, name: str) -> str:
        save(figure, name)
        return f"![{name}]({os.path.relpath(out / f'{name}.png', links_from)})"

    if not frame.empty:
        _write(frame.drop(columns="order"), out / "paired.csv")
        block += [WORDS, ""]
        stems = file_stems(frame["protocol"])
        for protocol, lines in frame.groupby("protocol", sort=False):
            block += _interventions(protocol, lines, title, stems[protocol], more, draw)
    chunks = causal.chunk_frame(cells)
    if not chunks.empty:
        _write(chunks.drop(columns="order"), out / "chunks.csv")
        stems = file_stems(chunks["protocol"])
        for protocol, lines in chunks.groupby("protocol", sort=False):
            block += [draw(readingfigures.chunks_figure(lines, title), f"chunks{stems[protocol]}"), ""]
    variants = list(dict.fromkeys(variant for variant, _ in causal.labelled(cells)))
    grids = causal.grids(cells)
    names = file_names(grids)
    for id, grid in grids.items():
        block += _grid(causal.grid_frame(cells, id), grid, f"probe-{names[id]}", variants, out, title, draw)
    shown = {(one.id, one.protocol): one for cell in cells for one in cell.readings}
    names, protocols = (file_names(ids) for ids in zip(*shown, strict=True)) if shown else ({}, {})
    for key, of_all in causal.readings(cells).items():
        name = f"probe-{names[key[0]]}-{protocols[key[1]]}"
        block += _reading(of_all, shown[key], name, variants, out, title, draw)
    return block


def _predictions(cells: list[CellRecords], out: Path, predictions: tuple[Prediction, ...], say) -> list[str]:
    found = causal.verdicts(cells, predictions)
    if found.empty:
        return []
    _write(found, out / "verdicts.csv")
    table = causal.verdict_table(found)
    write_atomically(out / "verdicts.md", (tables.to_markdown(table) + "\n").encode())
    say(f"\nPredictions, written before the run:\n\n{tables.to_text(table.drop(columns='prediction'))}\n")
    return ["Predictions, written before the run, and what became of them:", "", tables.to_markdown(table), ""]


def _interventions(protocol: str, lines: pd.DataFrame, title: str, stem: str, more: str, draw: Callable) -> list[str]:
    """What it is drawn by with its intervals, the other quantities by their differences alone."""
    quantity, *others = quantities_of(lines)
    heading = f"Paired difference of {QUANTITY_TITLES[quantity]}, `{protocol}`:"
    block = [heading, "", tables.to_markdown(causal.difference_table(lines, quantity)), ""]
    seeds = " / ".join(map(str, sorted(lines["seed"].unique())))
    for one in others:
        heading = f"The same of {QUANTITY_TITLES[one]}, `{protocol}`, training seeds {seeds}; intervals: {more}."
        block += [heading, "", tables.to_markdown(causal.short_difference_table(lines, one)), ""]
    figures = [(probefigures.paired_figure(lines, quantity, title), f"paired{stem}")]
    follow = causal.short_follow_table(lines)
    if not follow.empty:
        said = f"Follow rate (less the same episodes without it), `{protocol}`; whose target is chosen: {more}."
        block += [said, "", tables.to_markdown(follow), ""]
        figures.append((probefigures.follow_figure(lines, title), f"follow{stem}"))
    return block + [draw(*one) for one in figures] + [""]


def _grid(
    frame: pd.DataFrame, grid, name: str, variants: list[str], out: Path, title: str, draw: Callable
) -> list[str]:
    block = [f"Probe `{grid.id}`. {grid.notes}".strip(), ""]
    if frame.empty:
        return [*block, "Not run.", ""]
    _write(frame.drop(columns="order"), out / f"{name}.csv")
    if grid.y is None:
        figure = gridfigures.curves_figure(frame, grid, variants, f"{title}: {grid.id}")
        return [*block, draw(figure, name), ""]
    for variant in probefigures.variants_of(frame):
        figure = gridfigures.heatmap_figure(frame, variant, grid, f"{title}: {grid.id}, {variant}")
        block.append(draw(figure, f"{name}-{slug(variant)}"))
    return [*block, ""]


def _reading(
    frame: pd.DataFrame, one, name: str, variants: list[str], out: Path, title: str, draw: Callable
) -> list[str]:
    _write(frame.drop(columns="order"), out / f"{name}.csv")
    figure = readingfigures.reading_figure(frame, one, variants, f"{title}: {one.id}")
    return [f"Probe `{one.id}`, {one.episodes} episodes of `{one.protocol}`:", "", draw(figure, name), ""]


def slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _write(frame: pd.DataFrame, file: Path) -> None:
    write_atomically(file, frame.to_csv(index=False).encode())
