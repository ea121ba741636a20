"""The probes: grids of conditions and measurements, a small chart per variant and curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.page.content import Content
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.small_charts import Axes, Curve, panel
from analysis.paired import QUANTITY_TITLES
from muvla.evaluation.records import GridRows, TakenMeasurement

LINES = ("", " c1", " c2", " c3")  # CSS classes of the curves of one panel


class ProbesSection(Section):
    """A block per probe; each block closes."""

    title = "Probes"
    navigation = "probes"

    def applies(self, content: Content) -> bool:
        return bool(content.grids or content.measurements)

    def html(self, content: Content) -> str:
        blocks = [_grid_block(content, grid, frame) for grid, frame in content.grids]
        blocks += [_measurement_block(content, taken, frame) for taken, frame in content.measurements]
        return render(content, "probes.html", probes=blocks)


def _grid_block(content: Content, grid: GridRows, frame: pd.DataFrame) -> dict[str, Any]:
    """A grid with one axis has a panel per variant with a line per curve; a grid with two has a heat table."""
    quantity = "choice" if frame["choice_n"].any() else "success"
    block = {"id": grid.id, "notes": grid.notes, "title": QUANTITY_TITLES[quantity]}
    block |= {"x": grid.x.replace("_", " "), "y": "", "heats": []}
    if grid.y is None:
        return block | {"groups": [{"name": "", "panels": list(_grid_panels(content, grid, frame, quantity))}]}
    return block | {"heats": list(_heats(content, grid, frame)), "y": grid.y.replace("_", " "), "groups": []}


def _grid_panels(content: Content, grid: GridRows, frame: pd.DataFrame, quantity: str) -> Iterator[dict[str, Any]]:
    values = list(dict.fromkeys(point.coordinates[grid.x] for point in grid.points))
    numeric = all(isinstance(value, int | float) for value in values)
    places = {value: float(i) for i, value in enumerate(sorted(values) if numeric else values)}
    frame = frame.assign(_at=frame[grid.x].map(places), _y=frame[f"{quantity}_rate"])
    axes = Axes((0.0, max(1.0, len(places) - 1.0)), (0.0, 1.0))
    names = {place: str(value) for value, place in places.items()}
    curves = list(dict.fromkeys(point.coordinates[grid.curve] for point in grid.points)) if grid.curve else [None]
    for label, lines in _by_label(content, frame):
        drawn = []
        for number, curve in enumerate(curves):
            of_curve = lines if curve is None else lines[lines[grid.curve] == curve]
            for seed, of_seed in of_curve.groupby("seed"):
                mean = of_seed.groupby("_at")["_y"].mean()
                text = f"seed {seed}" + ("" if curve is None else f", {grid.curve.replace('_', ' ')} {curve}")
                drawn.append(Curve(tuple(mean.items()), "curve" + LINES[number % len(LINES)], text=text))
        chance = lines["chance"].dropna().unique().tolist() if quantity == "choice" else []
        text = f"{QUANTITY_TITLES[quantity]} of {label} by {grid.x}"
        chart = panel(axes, drawn, content.colour(label), text, names, chance[:1])
        yield {"label": label, "chart": chart, "curves": [(str(c), LINES[i % 4]) for i, c in enumerate(curves)]}


def _heats(content: Content, grid: GridRows, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The mean paired difference over seeds at every point of a grid with two axes."""
    changed = frame[frame["condition"] != "none"]
    for label, lines in _by_label(content, changed):
        keys = [grid.y, grid.x] if grid.curve is None else [grid.curve, grid.y, grid.x]
        means = lines.groupby(keys, sort=False)["difference"].mean()
        xs = list(dict.fromkeys(lines[grid.x]))
        rows: dict[str, dict[Any, float]] = {}
        for key, mean in means.items():
            *row, x = key
            rows.setdefault(", ".join(map(str, row)), {})[x] = mean
        yield {"label": label, "xs": xs, "rows": {name: [row.get(x) for x in xs] for name, row in rows.items()}}


def _measurement_block(content: Content, taken: TakenMeasurement, frame: pd.DataFrame) -> dict[str, Any]:
    frame = frame.dropna(subset=[c for c in (taken.x, taken.y, taken.curve) if c is not None])
    curves = list(frame[taken.curve].drop_duplicates()) if taken.curve else [None]
    groups = []
    for curve in curves:
        lines = frame if curve is None else frame[frame[taken.curve] == curve]
        name = taken.y.replace("_", " ") if curve is None else str(curve)
        groups.append({"name": name, "panels": list(_measured_panels(content, taken, lines))})
    note = f"{taken.episodes} episodes of {taken.protocol}"
    names = {"title": taken.y.replace("_", " "), "x": taken.x.replace("_", " "), "y": "", "heats": []}
    return {"id": taken.id, "notes": note, "groups": groups} | names


def _measured_panels(content: Content, taken: TakenMeasurement, lines: pd.DataFrame) -> Iterator[dict[str, Any]]:
    numeric = is_numeric_dtype(lines[taken.x])
    values = list(lines[taken.x].drop_duplicates())
    places = lines[taken.x] if numeric else lines[taken.x].map(values.index)
    lines = lines.assign(_at=places.astype(float))
    axes = Axes.around(lines["_at"], [lines[taken.y]], taken.share)
    names = None if numeric else {float(i): str(value) for i, value in enumerate(values)}
    for label, of_label in _by_label(content, lines):
        curves = []
        if taken.chance:
            bound = of_label.groupby("_at")[taken.chance].mean()
            curves.append(Curve(tuple(bound.items()), "reference chance"))
        for seed, of_seed in of_label.groupby("seed"):
            ordered = of_seed.sort_values("_at", kind="stable")
            points = tuple(zip(ordered["_at"], ordered[taken.y].astype(float), strict=True))
            limits = [tuple(ordered[c].astype(float)) for c in (taken.low, taken.high) if c is not None]
            low, high = limits if len(limits) == 2 else ((), ())
            curves.append(Curve(points, "curve", low, high, f"seed {seed}"))
        text = f"{taken.y} of {label} by {taken.x}, a line per training seed"
        yield {"label": label, "chart": panel(axes, curves, content.colour(label), text, names), "curves": []}


def _by_label(content: Content, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for label in content.labels:
        lines = frame[frame["variant"] == label]
        if len(lines):
            yield label, lines
