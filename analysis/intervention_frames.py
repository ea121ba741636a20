"""Tidy frames of interventions and probes: paired differences, chunk changes, grids and measurements."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd

from analysis.frames import NEVER_FIRED, labels_of, update_rule
from analysis.paired import CONFIDENCE, QUANTITIES, difference, rate
from muvla.evaluation.records import CellRecords, EpisodeRow, GridRows, acted, summarise
from muvla.stats import student_interval

GRID_QUANTITIES = ("choice", "own", "success")


def labelled(cells: list[CellRecords]) -> list[tuple[str, CellRecords]]:
    """(label, cell): the variant's name, with the training length where the variant has several."""
    labels = labels_of((cell.variant, cell.cell.budget.updates) for cell in cells)
    return [(labels[cell.variant, cell.cell.budget.updates], cell) for cell in cells]


def undefined_pairs(cells: list[CellRecords]) -> frozenset[tuple[str, str]]:
    """(label, intervention) and (variant, intervention) of the pairs that are not applicable."""
    return frozenset(
        (name, intervention)
        for label, cell in labelled(cells)
        for intervention in cell.not_applicable
        for name in (label, cell.variant)
    )


def paired_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """A line per cell, protocol and intervention, paired with the cell's plain run of the same protocol.

    Columns: order, variant, seed, train, rule, U, protocol, intervention, chance, never_fired, and

    - `choices`: measured episodes of the plain run with something to choose.
    - `share_own`, `share_donor`, `share_other`, `share_none`: first touches among all measured episodes; they sum to 1.
    - for every quantity `_n`, `_without`, `_with`, `_difference`, `_low`, `_high`, `_text` over the pairs.
    - `follow_rate_low`, `follow_rate_high`, `follow_rate_text`: interval of the donor-following rate itself.

    An intervention that never fired has no pair, and each of its `_text` columns says so.
    """
    lines = []
    for order, (variant, cell) in enumerate(labelled(cells)):
        silent = {condition: [] for condition in cell.never_fired}
        for (protocol, intervention), rows in (cell.rows | silent).items():
            plain = cell.rows.get((protocol, "none"))
            if intervention == "none" or not plain:
                continue
            line = {
                "order": order,
                "variant": variant,
                "seed": cell.cell.seed,
                "train": cell.train,
                "rule": update_rule(cell.cell),
                "U": cell.cell.budget.updates,
                "protocol": protocol,
                "intervention": intervention,
                "chance": cell.chance[protocol],
                "choices": summarise(plain).choices,
            }
            line |= {f"share_{name}": share for name, share in shares(rows).items()} | _differences(plain, rows)
            line["never_fired"] = (protocol, intervention) in silent
            if line["never_fired"]:
                line |= {column: NEVER_FIRED for column in line if column.endswith("_text")}
            lines.append(line)
    frame = pd.DataFrame(lines)
    return frame if frame.empty else frame.astype({"chance": float})


def _differences(plain: list[EpisodeRow], rows: list[EpisodeRow]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for quantity in QUANTITIES:
        pairs = difference(plain, rows, quantity)
        columns |= {
            f"{quantity}_n": pairs.n,
            f"{quantity}_without": pairs.first,
            f"{quantity}_with": pairs.second,
            f"{quantity}_difference": pairs.value,
            f"{quantity}_low": pairs.low,
            f"{quantity}_high": pairs.high,
            f"{quantity}_text": pairs.text,
        }
    follow = rate(rows, "follow")
    return columns | {
        "follow_rate_low": follow.low,
        "follow_rate_high": follow.high,
        "follow_rate_text": follow.text,
    }


def shares(rows: list[EpisodeRow]) -> dict[str, float]:
    """Shares of first touches among the measured episodes with something to choose.

    A donor whose target is the episode's own counts as `own`.
    """
    measured = [row for row in acted(rows) if row.target is not None]
    target = sum(row.correct for row in measured)
    donor = sum(row.choice == row.donor_target and not row.correct for row in measured)
    none = sum(row.choice == -1 for row in measured)
    counts = {"own": target, "donor": donor, "other": len(measured) - target - donor - none, "none": none}
    return {name: count / len(measured) if measured else float("nan") for name, count in counts.items()}


def quantities_of(lines: pd.DataFrame) -> tuple[str, ...]:
    """Quantities of one protocol's paired differences; the first is the one that figures show.

    The plain episodes decide whether something is chosen, because an intervention may have no episode.
    """
    return GRID_QUANTITIES if lines["choices"].any() else ("success",)


def with_donors(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of interventions that had a donor in some cell."""
    return frame[frame["intervention"].isin(frame[frame["follow_n"] > 0]["intervention"])]


def chunk_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """Change of the predicted action chunk: a line per cell, protocol, intervention and step since the cue's end.

    `value` is the mean absolute difference of normalised actions over `n` episodes; `low` and `high` are the 90 %
    limits of Student's t, None for n = 1.
    """
    lines = []
    for order, (variant, cell) in enumerate(labelled(cells)):
        for (protocol, intervention), by_step in cell.chunk_changes.items():
            for since, change in by_step.items():
                n, mean = change.n, change.mean
                low, high = student_interval(mean, change.sd, n, CONFIDENCE) if n > 1 else (None, None)
                lines.append(
                    {
                        "order": order,
                        "variant": variant,
                        "seed": cell.cell.seed,
                        "protocol": protocol,
                        "intervention": intervention,
                        "since_cue": since,
                        "n": n,
                        "value": mean,
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(lines)


def grid_frame(cells: list[CellRecords], id: str) -> pd.DataFrame:
    """A line per cell and point of the grid `id` that has run or never fired.

    Columns: order, variant, seed, H, protocol, condition (the intervention), never_fired, chance, and

    - the point's coordinates under their names; none has a name of this list (`muvla.probes.base.RESERVED`).
    - `held`, where some point has a number h: whether h exceeds the cell's chunk H.
    - for choice, own and success: `_n`, `_rate`, `_low`, `_high` (90 % Wilson interval).
    - `difference`, `_low`, `_high`, `_n`: paired difference from the grid's plain point of that protocol.
    """
    points = [
        (order, variant, cell, point)
        for order, (variant, cell) in enumerate(labelled(cells))
        for grid in cell.grids
        for point in grid.points
        if grid.id == id and (point.rows or point.never_fired)
    ]
    has_h = any(isinstance(point.coordinates.get("h"), int) for *_, point in points)
    drawn_by = "choice" if any(rate(point.rows, "choice").n for *_, point in points) else "success"
    plain = {(cell.train, p.protocol): p.rows for _, _, cell, p in points if p.intervention == "none"}
    lines = []
    for order, variant, cell, point in points:
        h = point.coordinates.get("h")
        line = {
            "order": order,
            "variant": variant,
            "seed": cell.cell.seed,
            "H": cell.cell.model.chunk,
            "protocol": point.protocol,
            "condition": point.intervention,
            "never_fired": point.never_fired,
            "chance": point.chance,
            **point.coordinates,
        }
        if has_h:
            line["held"] = isinstance(h, int) and h > cell.cell.model.chunk
        for quantity in GRID_QUANTITIES:
            counted = rate(point.rows, quantity)
            line |= {
                f"{quantity}_n": counted.n,
                f"{quantity}_rate": counted.value,
                f"{quantity}_low": counted.low,
                f"{quantity}_high": counted.high,
            }
        compared = plain.get((cell.train, point.protocol), []) if point.intervention != "none" else []
        pairs = difference(compared, point.rows, drawn_by)
        line |= {
            "difference": pairs.value,
            "difference_low": pairs.low,
            "difference_high": pairs.high,
            "difference_n": pairs.n,
        }
        lines.append(line)
    frame = pd.DataFrame(lines)
    return frame if frame.empty else frame.astype({"chance": float})


def grids(cells: list[CellRecords]) -> dict[str, GridRows]:
    """Grids by id; every cell of a study has the same ones."""
    return {grid.id: grid for cell in cells for grid in cell.grids}


def measurement_frames(cells: list[CellRecords]) -> dict[tuple[str, str], pd.DataFrame]:
    """(probe id, protocol id) → the frames of all cells, with columns variant, seed and order."""
    frames: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for order, (variant, cell) in enumerate(labelled(cells)):
        for taken in cell.measurements:
            frame = pd.read_csv(io.StringIO(taken.csv)).assign(variant=variant, seed=cell.cell.seed, order=order)
            frames.setdefault((taken.id, taken.protocol), []).append(frame)
    return {key: pd.concat(several, ignore_index=True) for key, several in frames.items()}
