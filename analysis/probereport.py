"""The part of a report on interventions and probes: paired differences, shams, verdicts, grids and readings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import causal, probefigures, tables
from analysis.paired import CONFIDENCE, MARGIN
from muvla.evaluation.predictions import Prediction
from muvla.evaluation.records import CellRecords
from muvla.files import write_atomically

WORDS = (
    f"Paired: with the intervention less without it, over the same episodes of one trained policy, with the "
    f'{CONFIDENCE:.0%} interval of Newcombe\'s method 10 and the number of pairs; "null" is an interval inside '
    f"±{MARGIN:.2f}. docs/causality.md defines quantities, verdicts and how training seeds combine."
)


def probe_block(
    cells: list[CellRecords],
    out: Path,
    title: str,
    predictions: tuple[Prediction, ...],
    save: Callable,
    links_from: Path,
    say: Callable[[str], None],
) -> list[str]:
    """Markdown, with the CSV files, tables and figures written to `out`; nothing where a study has no intervention and
    no probe. `save` writes a figure under a name."""
    frame = causal.causal(cells)
    block = _predictions(cells, out, predictions, say)

    def draw(figure, name: str) -> str:
        save(figure, name)
        return f"![{name}]({os.path.relpath(out / f'{name}.png', links_from)})"

    if not frame.empty:
        _write(frame.drop(columns="order"), out / "paired.csv")
        block += [WORDS, ""]
        for protocol, lines in frame.groupby("protocol", sort=False):
            stem = "" if frame["protocol"].nunique() == 1 else f"-{protocol.split('@')[0]}"
            block += _interventions(protocol, lines, title, stem, draw)
    chunks = causal.chunk_frame(cells)
    if not chunks.empty:
        _write(chunks.drop(columns="order"), out / "chunks.csv")
        for protocol, lines in chunks.groupby("protocol", sort=False):
            stem = "" if chunks["protocol"].nunique() == 1 else f"-{protocol.split('@')[0]}"
            block += [draw(probefigures.chunks_figure(lines, title), f"chunks{stem}"), ""]
    arms = list(dict.fromkeys(arm for arm, _ in causal.labelled(cells)))
    for id, grid in causal.grids(cells).items():
        block += _grid(causal.grid_frame(cells, id), grid, arms, out, title, draw)
    shown = {(one.id, one.protocol): one for cell in cells for one in cell.readings}
    for key, of_all in causal.readings(cells).items():
        block += _reading(of_all, shown[key], arms, out, title, draw)
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


def _interventions(protocol: str, lines: pd.DataFrame, title: str, stem: str, draw: Callable) -> list[str]:
    quantity = "choice" if lines["share_own"].notna().any() else "success"
    block = []
    for one in ("choice", "own", "success") if quantity == "choice" else ("success",):
        heading = f"Paired difference of {probefigures.QUANTITY_TITLES[one]}, `{protocol}`:"
        block += [heading, "", tables.to_markdown(causal.difference_table(lines, one)), ""]
    figures = [(probefigures.paired_figure(lines, quantity, title), f"paired{stem}")]
    follow = causal.follow_table(lines)
    if not follow.empty:
        block += [f"Whose target is chosen, `{protocol}`; shares are of all episodes and sum to 1:", ""]
        block += [tables.to_markdown(follow), ""]
        figures.append((probefigures.follow_figure(lines, title), f"follow{stem}"))
    return block + [draw(*one) for one in figures] + [""]


def _grid(frame: pd.DataFrame, grid, arms: list[str], out: Path, title: str, draw: Callable) -> list[str]:
    name = grid.id.partition("@")[0]
    block = [f"Probe `{grid.id}`. {grid.notes}".strip(), ""]
    if frame.empty:
        return [*block, "Not run.", ""]
    _write(frame.drop(columns="order"), out / f"probe-{name}.csv")
    if grid.y is None:
        figure = probefigures.curves_figure(frame, grid, arms, f"{title}: {grid.id}")
        return [*block, draw(figure, f"probe-{name}"), ""]
    seeds = sorted(frame["seed"].unique())
    for arm in probefigures.arms_of([frame]):
        figure = probefigures.heatmap_figure(frame[frame["arm"] == arm], grid, seeds, f"{title}: {grid.id}, {arm}")
        block.append(draw(figure, f"probe-{name}-{slug(arm)}"))
    return [*block, ""]


def _reading(frame: pd.DataFrame, one, arms: list[str], out: Path, title: str, draw: Callable) -> list[str]:
    name = f"probe-{one.id.partition('@')[0]}-{one.protocol.partition('@')[0]}"
    _write(frame.drop(columns="order"), out / f"{name}.csv")
    figure = probefigures.reading_figure(frame, one, arms, f"{title}: {one.id}")
    return [f"Probe `{one.id}`, {one.episodes} episodes of `{one.protocol}`:", "", draw(figure, name), ""]


def slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _write(frame: pd.DataFrame, file: Path) -> None:
    write_atomically(file, frame.to_csv(index=False).encode())
