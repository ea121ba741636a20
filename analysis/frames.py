"""Tidy frames: one line per trained cell, protocol and intervention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from muvla.config import Cell
from muvla.errors import MuvlaError
from muvla.evaluation.records import CellRecords, EpisodeRow, summarise
from muvla.stats import wilson

# Metric → (numerator, denominator) among the counts of a line.
METRICS = {
    "touch": ("touched", "choices"),
    "choice": ("correct", "touched"),
    "success": ("successes", "measured"),
}
METRIC_TITLES = {
    "touch": "touch rate",
    "choice": "first-touch accuracy given a touch",
    "success": "success",
}

NOT_RUN = "not run"
NOT_APPLICABLE = "not applicable"  # the variant's memory cannot take the intervention
NEVER_FIRED = "never fired"  # an intervention that acted in no episode: there is no result, and never will be


def update_rule(cell: Cell) -> str:
    """The update rule in words: none, dummy, K=8, EMA 0.1."""
    return cell.memory.update_rule(cell.truncation)


def tidy(cells: list[CellRecords]) -> pd.DataFrame:
    """Frame of every result of the cells.

    Columns: order, variant, rule, labels, H, m, K, alpha, B, W, U, frames, seed, train, protocol, intervention,
    never_fired, chance, best_constant, counts, and for every metric `_rate` with the 95 % Wilson limits `_low` and
    `_high`. An intervention that acted in no episode has counts of 0 and no rate.

    Raises:
        MuvlaError: two cells would be one line of a table (same variant, training length and seed).
    """
    lines = []
    seen: dict[tuple, str] = {}
    for order, item in enumerate(cells):
        place = (item.variant, item.cell.budget.updates, item.cell.seed)
        if seen.setdefault(place, item.train) != item.train:
            raise MuvlaError(
                "report",
                got=f"two cells with variant {item.variant!r}, U = {place[1]}, seed {place[2]}",
                expected="one cell of this variant, training length and seed",
                remedy="report the studies apart",
            )
        silent = {condition: [] for condition in item.never_fired}
        for (protocol, intervention), rows in (item.rows | silent).items():
            lines.append(
                {"order": order, "variant": item.variant}
                | _configuration(item)
                | {
                    "protocol": protocol,
                    "intervention": intervention,
                    "never_fired": (protocol, intervention) in silent,
                    "chance": float("nan") if item.chance[protocol] is None else item.chance[protocol],
                    "best_constant": best_constant_choice(rows),
                }
                | rates_of(rows)
            )
    return pd.DataFrame(lines)


def _configuration(item: CellRecords) -> dict[str, Any]:
    cell = item.cell
    recurs = cell.memory.gradient_crosses  # else K and α are canonical values that nothing uses
    return {
        "rule": update_rule(cell),
        "labels": cell.data.labels,
        "H": cell.model.chunk,
        "m": cell.memory.tokens,
        "K": cell.truncation if recurs else None,
        "alpha": getattr(cell.memory, "alpha", None) if recurs else None,
        "B": cell.budget.slots,
        "W": cell.budget.window,
        "U": cell.budget.updates,
        "frames": cell.budget.total_frames,
        "seed": cell.seed,
        "train": item.train,
    }


def read_cells(file: Path) -> pd.DataFrame:
    """The tidy frame that a report wrote to `cells.csv`, also of earlier versions, which wrote fewer columns."""
    frame = pd.read_csv(file, keep_default_na=False, na_values=[""])
    frame["order"] = frame.groupby(["variant", "U"], sort=False).ngroup()  # reports write cells in the study's order
    if "never_fired" not in frame:
        frame["never_fired"] = False
    if "choices" not in frame:  # every episode of a task with a best constant choice has something to choose
        frame["choices"] = frame["measured"].where(frame["best_constant"].notna(), 0)
    for column in ("B", "W", "frames"):
        if column not in frame:
            frame[column] = pd.NA
    return frame


def rates_of(rows: list[EpisodeRow]) -> dict[str, Any]:
    """Counts of one result, and for every metric its rate with the 95 % Wilson limits."""
    summary = summarise(rows)
    counts = {
        "episodes": summary.episodes,
        "errors": summary.errors,
        "measured": summary.measured,
        "choices": summary.choices,
        "touched": summary.touched,
        "correct": summary.correct,
        "successes": summary.success,
    }
    for metric, (top, bottom) in METRICS.items():
        low, high = wilson(counts[top], counts[bottom])
        rate = counts[top] / counts[bottom] if counts[bottom] else float("nan")
        counts |= {f"{metric}_rate": rate, f"{metric}_low": low, f"{metric}_high": high}
    return counts


def best_constant_choice(rows: list[EpisodeRow]) -> float:
    """Accuracy of a policy that always chooses the most frequent target of these episodes.

    On a fixed block of episode seeds, such a habit reaches a little more than 1/N without memory. NaN for a task in
    which nothing is chosen.
    """
    targets = Counter(row.target for row in rows if row.error is None and row.target is not None)
    return max(targets.values()) / sum(targets.values()) if targets else float("nan")


def metric_of(frame: pd.DataFrame) -> str:
    """The metric that compares one protocol's results: first-touch accuracy, or success where nothing is chosen."""
    return "choice" if frame["choices"].any() else "success"


def metrics_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """All metrics that one protocol's episodes have."""
    return tuple(METRIC_TITLES) if metric_of(frame) == "choice" else ("success",)


def variants_in_order(frame: pd.DataFrame) -> list[str]:
    """Variants in the study's order."""
    return list(frame.sort_values("order", kind="stable")["variant"].drop_duplicates())


def interventions_in_order(frame: pd.DataFrame) -> list[str]:
    """Interventions in the study's order."""
    return list(frame.sort_values("order", kind="stable")["intervention"].drop_duplicates())


def labels_of(lengths: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """(variant, updates) → label: the variant, with its training length where it has several."""
    lengths = list(dict.fromkeys((variant, int(updates)) for variant, updates in lengths))
    counts = Counter(variant for variant, _ in lengths)
    return {(v, u): v if counts[v] == 1 else f"{v}, U={u}" for v, u in lengths}


def has_several_lengths(frame: pd.DataFrame) -> bool:
    """True if a variant was trained at several U: then tables and figures keep the lengths apart.

    Variants that differ in U among themselves stand side by side.
    """
    return bool((frame.groupby("variant")["U"].nunique() > 1).any())


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """Maps each id to its name in files: without its version, unless two ids differ in the version alone."""
    ids = list(dict.fromkeys(ids))
    counts = Counter(id.partition("@")[0] for id in ids)
    return {id: name if counts[name := id.partition("@")[0]] == 1 else id for id in ids}


def file_stems(protocols: Iterable[str]) -> dict[str, str]:
    """Maps each protocol id to the end of its files' names: empty where there is but one protocol."""
    names = file_names(protocols)
    return {id: f"-{name}" if len(names) > 1 else "" for id, name in names.items()}
