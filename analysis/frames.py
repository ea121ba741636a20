"""Tidy frames: one line per trained cell, protocol and intervention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from muvla.config import Cell
from muvla.errors import MuvlaError
from muvla.evaluation.records import CellRecords, EpisodeRow, summarise
from muvla.stats import wilson

# Reading → (numerator, denominator) among the counts of a line.
READINGS = {
    "touch": ("touched", "choices"),
    "choice": ("correct", "touched"),
    "success": ("successes", "measured"),
}
READING_TITLES = {
    "touch": "touch rate",
    "choice": "choice accuracy given a touch",
    "success": "success",
}

NOT_RUN = "not run"
NEVER_FIRED = "never fired"  # an intervention that acted in no episode: there is no result, and never will be


def update_rule(cell: Cell) -> str:
    """In words: none, dummy, TBPTT K, EMA α."""
    memory = cell.memory
    if memory.kind != "tokens":
        return memory.kind
    if memory.alpha == 1:
        return f"K={cell.truncation}"
    return f"EMA {memory.alpha:g}" + (f", K={cell.truncation}" if cell.truncation > 1 else "")


def tidy(cells: list[CellRecords]) -> pd.DataFrame:
    """Columns: variant, rule, labels, H, m, K, alpha, B, W, U, frames, seed, train, protocol, intervention, chance,
    best_constant, counts, and for every reading its rate with the 95 % Wilson bounds; `never_fired` for an intervention
    that acted in no episode, whose counts are 0 and which has no rate.

    Raises MuvlaError if two cells would be one line of a table (same variant, training length and seed).
    """
    lines = []
    seen: dict[tuple, str] = {}
    for order, item in enumerate(cells):
        cell = item.cell
        recurs = cell.memory.kind == "tokens"  # else K and α are canonical values that nothing uses
        place = (item.variant, cell.budget.updates, cell.seed)
        if seen.setdefault(place, item.train) != item.train:
            raise MuvlaError(
                "report",
                got=f"two cells that are variant {item.variant!r} with U = {cell.budget.updates}, seed {cell.seed}",
                expected="one",
                remedy="report the studies apart",
            )
        silent = {condition: [] for condition in item.never_fired}
        for (protocol, intervention), rows in (item.rows | silent).items():
            line: dict[str, Any] = {
                "order": order,
                "variant": item.variant,
                "rule": update_rule(cell),
                "labels": cell.data.labels,
                "H": cell.model.chunk,
                "m": cell.memory.m,
                "K": cell.truncation if recurs else None,
                "alpha": cell.memory.alpha if recurs else None,
                "B": cell.budget.slots,
                "W": cell.budget.window,
                "U": cell.budget.updates,
                "frames": cell.budget.total_frames,
                "seed": cell.seed,
                "train": item.train,
                "protocol": protocol,
                "intervention": intervention,
                "never_fired": (protocol, intervention) in silent,
                "chance": float("nan") if item.chance[protocol] is None else item.chance[protocol],
                "best_constant": best_constant_choice(rows),
                **rates_of(rows),
            }
            lines.append(line)
    return pd.DataFrame(lines)


def rates_of(rows: list[EpisodeRow]) -> dict[str, Any]:
    """Counts of one result, and for every reading its rate with the 95 % Wilson bounds."""
    s = summarise(rows)
    counts = {
        "episodes": s.episodes,
        "errors": s.errors,
        "measured": s.measured,
        "choices": s.choices,
        "touched": s.touched,
        "correct": s.correct,
        "successes": s.success,
    }
    for reading, (top, bottom) in READINGS.items():
        low, high = wilson(counts[top], counts[bottom])
        rate = counts[top] / counts[bottom] if counts[bottom] else float("nan")
        counts |= {f"{reading}_rate": rate, f"{reading}_low": low, f"{reading}_high": high}
    return counts


def best_constant_choice(rows: list[EpisodeRow]) -> float:
    """Accuracy of always choosing the most frequent target of these very episodes: on a fixed block of seeds, what a
    habit reaches without memory, a little above 1/N. NaN for a task where nothing is chosen."""
    targets = Counter(row.target for row in rows if row.error is None and row.target is not None)
    return max(targets.values()) / sum(targets.values()) if targets else float("nan")


def reading_of(frame: pd.DataFrame) -> str:
    """What one protocol's results are compared by: choice accuracy given a touch; success where nothing is chosen."""
    return "choice" if frame["choices"].any() else "success"


def readings_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """All that one protocol's episodes have."""
    return tuple(READING_TITLES) if reading_of(frame) == "choice" else ("success",)


def variants_in_order(frame: pd.DataFrame) -> list[str]:
    return list(frame.sort_values("order")["variant"].drop_duplicates())


def has_several_lengths(frame: pd.DataFrame) -> bool:
    """Whether a variant was trained at several U: then tables and figures keep them apart. Variants that differ in U
    among themselves stand side by side."""
    return bool((frame.groupby("variant")["U"].nunique() > 1).any())


def file_names(ids: Iterable[str]) -> dict[str, str]:
    """Of each id, what files are named by: without its version, or with it where others differ in nothing else."""
    ids = list(dict.fromkeys(ids))
    alike = Counter(one.partition("@")[0] for one in ids)
    return {one: name if alike[name := one.partition("@")[0]] == 1 else one for one in ids}


def file_stems(protocols: Iterable[str]) -> dict[str, str]:
    """Of each protocol id, what its files' names end with: nothing where there is but one."""
    names = file_names(protocols)
    return {one: f"-{name}" if len(names) > 1 else "" for one, name in names.items()}
