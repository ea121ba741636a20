"""Figures of grids: curves over one axis, and heatmaps over two."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from analysis.by_seed import QUANTITY_TITLES
from analysis.figures.interventions import bare, legend, say_not_run
from analysis.figures.rates import COLOURS
from analysis.frames import NEVER_FIRED
from muvla.evaluation.records import GridRows

FEW = 20  # episodes: a rate or difference over fewer is no colour, and says over how many
GREY = "0.88"  # of a field over few episodes


def _values(grid: GridRows, axis: str, points: list | None = None) -> list:
    """In order of size where all are numbers, else of appearance."""
    values = list(dict.fromkeys(point.coordinates[axis] for point in (grid.points if points is None else points)))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def _drawn_by(frame: pd.DataFrame) -> str:
    return "choice" if frame["choice_n"].any() else "success"


def curves_figure(frame: pd.DataFrame, grid: GridRows, variants: list[str], title: str) -> Figure:
    """A grid without second axis: a row per quantity, a panel per variant, a colour per value of `curve`, a line per
    training seed with 90 % Wilson intervals. The horizontal axis is one of names: its values stand evenly. Where a line
    has several points at one of them, they are small marks, and it goes through their mean; where h is beyond a
    variant's chunk H, marks are hollow. Where the intervention never fired, that is written there in its curve's
    colour, "k of n" where it is so of k of the n points and seeds alone, and no line passes through."""
    quantities = ("choice", "success") if _drawn_by(frame) == "choice" else ("success",)
    positions = {value: i for i, value in enumerate(_values(grid, grid.x))}
    curves = _values(grid, grid.curve) if grid.curve else [None]
    figure = Figure(figsize=(max(8.0, 1.2 + 2.3 * len(variants)), 1.9 + 2.2 * len(quantities)), layout="constrained")
    panels = figure.subplots(len(quantities), len(variants), sharex=True, sharey=True, squeeze=False)
    several = False
    for quantity, row in zip(quantities, panels, strict=True):
        for variant, axes in zip(variants, row, strict=True):
            lines = frame[frame["variant"] == variant]
            if lines.empty:
                say_not_run(axes)
            for i, curve in enumerate(curves):
                shown = lines if curve is None else lines[lines[grid.curve] == curve]
                for _, of_seed in shown.groupby("seed"):
                    several |= _curve(axes, of_seed, positions, grid.x, quantity, COLOURS[i % len(COLOURS)])
                aside = (i - (len(curves) - 1) / 2) * 6  # points: what several curves say at one x stands side by side
                _say_never_fired(axes, shown, positions, grid.x, aside, COLOURS[i % len(COLOURS)])
            if quantity == "choice":
                bound = lines.groupby(grid.x)["chance"].first()
                at = [positions[x] for x in bound.index]
                for x, chance in zip(at, bound, strict=True):
                    axes.hlines(chance, x - 0.4, x + 0.4, color="0.4", linestyle="--", linewidth=1, zorder=0)
            axes.set_xticks(
                range(len(positions)),
                [str(x) for x in positions],
                fontsize=8,
                rotation=40 if max(len(str(x)) for x in positions) > 4 else 0,
            )
            axes.set_ylim(0, 1.02)
            axes.set_xlim(-0.5, len(positions) - 0.5)
            axes.grid(axis="y", alpha=0.25)
            bare(axes)
        row[0].set_ylabel(QUANTITY_TITLES[quantity], fontsize=8)
    for variant, axes, last in zip(variants, panels[0], panels[-1], strict=True):
        own = frame[frame["variant"] == variant]["H"].unique() if "held" in frame else []
        axes.set_title(", ".join([variant, *(f"H={chunk}" for chunk in own)]), fontsize=9)
        last.set_xlabel(grid.x.replace("_", " "), fontsize=8)
    figure.suptitle(f"{title}\na line per training seed; bars: 90 % Wilson intervals", fontsize=9)
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[i % len(COLOURS)],
            marker="o",
            markersize=4,
            label="all" if curve is None else f"{grid.curve.replace('_', ' ')}: {curve}",
        )
        for i, curve in enumerate(curves)
    ]
    handles.append(Line2D([], [], color="0.4", linestyle="--", label="chance without memory"))
    mark = {"linestyle": "", "marker": "o", "color": "0.4"}
    if several:
        told = "one of several points at one x; the line: their mean"
        handles.append(Line2D([], [], **mark, markersize=2, label=told))
    if "held" in frame and frame["held"].any():
        told = "h beyond the chunk H: its last action is held"
        handles.append(Line2D([], [], **mark, markersize=4, markerfacecolor="white", label=told))
    legend(figure, handles)
    return figure


def _curve(axes: Axes, lines: pd.DataFrame, positions: dict, x: str, quantity: str, colour: str) -> bool:
    """Whether it has several points at one x."""
    lines = lines.assign(at=lines[x].map(positions)).sort_values("at")
    known = lines[lines[f"{quantity}_n"] > 0]
    if known.empty:  # nothing fired or touched; a line without any value has no extent, and would upset the layout
        return False
    rate = f"{quantity}_rate"
    crowded = known["at"].duplicated(keep=False)
    alone = known[~crowded]
    axes.vlines(alone["at"], alone[f"{quantity}_low"], alone[f"{quantity}_high"], color=colour, linewidth=1, alpha=0.45)
    if crowded.any():
        axes.plot(
            known["at"][crowded],
            known[rate][crowded],
            color=colour,
            linestyle="",
            marker="o",
            markersize=1.6,
            alpha=0.5,
            clip_on=False,
        )
    means = known.groupby("at")[rate].mean().reindex(lines["at"].unique())  # where there is none, the line is broken
    held = set(known["at"][known["held"]]) if "held" in known else set()
    hollow = [i for i, at in enumerate(means.index) if at in held]
    axes.plot(
        means.index,
        means,
        color=colour,
        linewidth=1,
        alpha=0.75,
        marker="o",
        markersize=3,
        markevery=[i for i in range(len(means)) if i not in hollow],
        clip_on=False,
    )
    if hollow:
        axes.plot(
            means.index[hollow],
            means.iloc[hollow],
            color=colour,
            linestyle="",
            marker="o",
            markersize=3.5,
            markerfacecolor="white",
            clip_on=False,
        )
    return bool(crowded.any())


def _say_never_fired(axes: Axes, lines: pd.DataFrame, positions: dict, x: str, aside: float, colour: str) -> None:
    """Of one curve with all its seeds."""
    for at, here in lines.groupby(lines[x].map(positions)):
        if silent := int(here["never_fired"].sum()):
            text = NEVER_FIRED if silent == len(here) else f"{NEVER_FIRED}: {silent} of {len(here)}"
            axes.annotate(
                text,
                (at, 0.5),
                (aside, 0),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="center",
                fontsize=5,
                color=colour,
            )


def heatmap_figure(frame: pd.DataFrame, variant: str, grid: GridRows, title: str) -> Figure:
    """Of one variant, a grid with two axes: a row per value of `curve` with rates, and one with the paired differences
    where the grid has a plain point to take them from; the mean over training seeds first and then every seed. A field
    over fewer than `FEW` episodes has no colour; one of some of its column's seeds alone is dotted, and says of how
    many; one that has not run is empty. `frame` is of all variants, so that their figures have the same columns."""
    quantity, seeds = _drawn_by(frame), sorted(frame["seed"].unique())
    lines, xs = frame[frame["variant"] == variant], _values(grid, grid.x)
    rates, differences = [], []
    for curve in _values(grid, grid.curve) if grid.curve else [None]:
        points = [p for p in grid.points if curve is None or p.coordinates[grid.curve] == curve]
        of_curve = lines if curve is None else lines[lines[grid.curve] == curve]
        rates.append((curve, of_curve, _values(grid, grid.y, points)))
        if (of_curve["difference_n"] > 0).any():
            changed = [p for p in points if p.intervention != "none"]
            differences.append((curve, of_curve[of_curve["condition"] != "none"], _values(grid, grid.y, changed)))
    columns = [("mean over seeds", seeds), *((f"seed {seed}", [seed]) for seed in seeds)]
    kinds = [(f"{quantity}_rate", f"{quantity}_n", "viridis", (0, 1))] * len(rates)
    kinds += [("difference", "difference_n", "RdBu", (-1, 1))] * len(differences)
    rows = rates + differences
    height = 1.9 + sum(0.32 * len(ys) + 0.45 for *_, ys in rows)
    figure = Figure(figsize=(max(7.0, 1.9 + (0.36 * len(xs) + 0.5) * len(columns)), height), layout="constrained")
    panels = figure.subplots(
        len(rows), len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=[len(ys) for *_, ys in rows]
    )
    images, said = [], set()
    for (curve, of_curve, ys), kind, row in zip(rows, kinds, panels, strict=True):
        for (_, wanted), axes in zip(columns, row, strict=True):
            image = _fields(axes, of_curve, wanted, (grid.x, xs), (grid.y, ys), kind, said)
        images.append(image)
        row[0].set_ylabel(("" if curve is None else f"{curve}\n") + grid.y.replace("_", " "), fontsize=8)
    for (name, _), top, bottom in zip(columns, panels[0], panels[-1], strict=True):
        top.set_title(name, fontsize=8)
        bottom.set_xlabel(grid.x.replace("_", " "), fontsize=8)
    for of, image, label in (
        (panels[: len(rates)], images[0], QUANTITY_TITLES[quantity]),
        (panels[len(rates) :], images[-1], "paired difference,\nless without"),
    ):
        if of.size:
            bar = figure.colorbar(image, ax=of, fraction=0.02)
            bar.set_label(label, fontsize=8)
            bar.ax.tick_params(labelsize=7)
    chance = lines["chance"].iloc[0]
    bound = "" if pd.isna(chance) else f"; chance without memory {chance:.2f}"
    figure.suptitle(f"{title}\n{QUANTITY_TITLES[quantity]}{bound}", fontsize=9)
    handles = [handle for word, handle in _SAID.items() if word in said]
    if handles:
        legend(figure, handles)
    return figure


# What fields say besides their number → how the legend says it.
_SAID = {
    "few": Patch(
        facecolor=GREY,
        edgecolor="0.6",
        hatch="////",
        label=f"fewer than {FEW} episodes: n (of means, of the seed with the fewest)",
    ),
    "part": Patch(
        facecolor="none",
        edgecolor="0.6",
        hatch="....",
        label="k/N seeds: of those k of the column's N alone, the others have no value",
    ),
    "none": Line2D([], [], linestyle="", marker="$–$", color="0.2", label="no episode that tells"),
    "never": Line2D([], [], linestyle="", marker="x", color="0.2", markersize=4, label=NEVER_FIRED),
}


def _fields(
    axes: Axes, lines: pd.DataFrame, seeds: list[int], across: tuple, along: tuple, kind: tuple, said: set[str]
) -> AxesImage:
    """Draws the fields of a column of these training seeds, and adds to `said` what of `_SAID` they say."""
    (x_axis, xs), (y_axis, ys), (value_of, n_of, colours, limits) = across, along, kind
    shown = lines[lines["seed"].isin(seeds)]
    fields = dict(list(shown.groupby([y_axis, x_axis], sort=False)))
    means = np.full((len(ys), len(xs)), np.nan)
    for (y, x), here in fields.items():
        means[ys.index(y), xs.index(x)] = here[value_of].mean()
    image = axes.imshow(means, vmin=limits[0], vmax=limits[1], cmap=colours, aspect="auto")
    for (y, x), here in fields.items():
        i, j = ys.index(y), xs.index(x)
        known, run = here[here[value_of].notna()], here[~here["never_fired"]]
        marked = []
        if not known.empty:
            told, ground = known, image.cmap(image.norm(means[i, j]))
            words = [f"{means[i, j]:{'+' if limits[0] < 0 else ''}.2f}".replace("0.", ".")]
            if (fewest := known[n_of].min()) < FEW:
                marked, ground = ["few"], to_rgba(GREY)
                words.append(f"n {fewest:.0f}")
        else:
            word, sign, told = ("never", "×", here) if run.empty else ("none", "–", run)
            words, ground = [sign], to_rgba("w")
            said.add(word)
        if (count := told["seed"].nunique()) < len(seeds):
            marked.append("part")
            words.append(f"{count}/{len(seeds)} seeds")
        for word in marked:
            axes.add_patch(
                Rectangle(
                    (j - 0.5, i - 0.5),
                    1,
                    1,
                    facecolor=GREY if word == "few" else "none",
                    edgecolor="0.6",
                    hatch=_SAID[word].get_hatch(),
                    lw=0,
                )
            )
        said.update(marked)
        dark = 0.3 * ground[0] + 0.6 * ground[1] + 0.1 * ground[2] < 0.5
        axes.text(
            j,
            i,
            "\n".join(words),
            ha="center",
            va="center",
            fontsize=(6, 5, 4.5)[len(words) - 1],
            color="w" if dark else "k",
            bbox={"facecolor": ground, "edgecolor": "none", "pad": 0.6} if marked else None,
        )
    if shown.empty:
        say_not_run(axes)
    axes.set_xticks(range(len(xs)), [str(x) for x in xs], fontsize=7)
    axes.set_yticks(range(len(ys)), [str(y) for y in ys], fontsize=7)
    return image
