"""Figures. Each takes the tidy frame of one protocol and returns a matplotlib Figure; every training seed is a mark of
its own."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.frames import NEVER_FIRED, READING_TITLES, has_several_lengths, reading_of, variants_in_order

# Okabe-Ito, safe for colour-blind readers; one colour per label kind and chunk length.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SPREAD = 0.5  # width over which the seeds of a variant are spread
NARROWEST = 8.0  # inches: room for the title and for a legend of three columns
LEGEND_COLUMN = 2.6  # inches
PER_ROW = 6  # panels of interventions side by side
# What a cross at 0 says, by reading: no rate, for want of episodes to take it over.
NOTHING = {"choice": "nothing touched in any episode", "success": "every episode ended in an error"}


def _group(line: pd.Series) -> str:
    return f"{line['labels']} labels, H={line['H']}"


def draw_reading(axes: Axes, lines: pd.DataFrame, variants: list[str], groups: list[str], reading: str) -> None:
    """One mark with its 95 % Wilson interval per variant and seed; a cross at 0 where there is no rate, and in words
    where the intervention never fired."""
    seeds = sorted(lines["seed"].unique())
    for _, line in lines.iterrows():
        shift = (seeds.index(line["seed"]) - (len(seeds) - 1) / 2) * SPREAD / max(1, len(seeds))
        x, rate = variants.index(line["variant"]) + shift, line[f"{reading}_rate"]
        colour = COLOURS[groups.index(_group(line)) % len(COLOURS)]
        if line["never_fired"]:
            axes.text(x, 0.02, NEVER_FIRED, rotation=90, ha="center", va="bottom", fontsize=5, color="0.4")
            continue
        if pd.isna(rate):
            axes.plot(x, 0, marker="x", color=colour, markersize=5, clip_on=False)
            continue
        axes.vlines(x, line[f"{reading}_low"], line[f"{reading}_high"], color=colour, linewidth=1.2, alpha=0.7)
        axes.plot(x, rate, marker="o", color=colour, markersize=4, clip_on=False)
    if not lines.empty:
        for bound, style in ((lines["chance"].iloc[0], "--"), (lines["best_constant"].max(), ":")):
            if pd.notna(bound):
                axes.axhline(bound, color="0.4", linestyle=style, linewidth=1, zorder=0)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.6, len(variants) - 0.4)
    axes.set_xticks(range(len(variants)), variants, rotation=40, ha="right", fontsize=8)
    axes.grid(axis="y", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure, groups: list[str], chance: float, constant: float, nothing: str | None) -> None:
    marks = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[i % len(COLOURS)], label=g) for i, g in enumerate(groups)
    ]
    if pd.notna(chance):
        marks.append(Line2D([], [], color="0.4", linestyle="--", label=f"chance without memory ({chance:.2f})"))
    if pd.notna(constant):
        constant_label = f"always the most frequent target ({constant:.2f})"
        marks.append(Line2D([], [], color="0.4", linestyle=":", label=constant_label))
    if nothing is not None:
        marks.append(Line2D([], [], marker="x", linestyle="", color="0.2", label=nothing))
    columns = min(len(marks), int(figure.get_figwidth() // LEGEND_COLUMN))
    figure.legend(handles=marks, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def main_figure(frame: pd.DataFrame, title: str) -> Figure:
    """The protocol's reading by variant, without intervention; a panel per training length, where a variant has
    several."""
    plain = frame[frame["intervention"] == "none"]
    panels = [(f"{u} updates", plain[plain["U"].isin(us)]) for u, us in _lengths(plain)]
    return _grid(plain, [("", panels)], title)


def intervention_figure(frame: pd.DataFrame, title: str) -> Figure:
    """The same under each intervention: a panel per intervention, the plain run first, in rows of at most six, and rows
    of their own for every training length."""
    touched = frame[frame["intervention"] != "none"]["variant"].unique()
    shown = frame[frame["variant"].isin(touched)]
    kinds = list(shown.sort_values("order")["intervention"].drop_duplicates())
    rows = []
    for u, us in _lengths(shown):
        lines = shown[shown["U"].isin(us)]
        panels = [(kind, lines[lines["intervention"] == kind]) for kind in kinds]
        rows += [(f"{u}\n", panels[i : i + PER_ROW]) for i in range(0, len(panels), PER_ROW)]
    return _grid(shown, rows, title)


def _lengths(frame: pd.DataFrame) -> list[tuple[str, list[int]]]:
    """Name and training lengths U of each panel: one of each length where a variant has several; else one for all
    variants."""
    lengths = sorted(frame["U"].unique())
    if len(lengths) == 1 or has_several_lengths(frame):
        return [(f"U = {u}", [u]) for u in lengths]
    return [(f"U = {lengths[0]} to {lengths[-1]}", lengths)]


def _grid(
    frame: pd.DataFrame,
    rows: list[tuple[str, list[tuple[str, pd.DataFrame]]]],
    title: str,
) -> Figure:
    """`rows` are (label, panels), each panel (title, lines); a title is not repeated under itself."""
    variants, reading = variants_in_order(frame), reading_of(frame)
    groups = list(dict.fromkeys(_group(line) for _, line in frame.sort_values("order").iterrows()))
    columns = max(len(panels) for _, panels in rows)
    width = 1.2 + max(2.4, 0.34 * len(variants)) * columns
    figure = Figure(figsize=(max(NARROWEST, width), 1.6 + 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, sharey=True, sharex=True, squeeze=False)
    above: list[str] = []
    for (label, panels), row in zip(rows, grid, strict=True):
        for (name, lines), axes in zip(panels, row, strict=False):
            draw_reading(axes, lines, variants, groups, reading)
            axes.set_title("" if name in above else name, fontsize=9)
        for axes in row[len(panels) :]:
            axes.set_visible(False)
        row[0].set_ylabel(label + READING_TITLES[reading], fontsize=9)
        above = above + [name for name, _ in panels]
    seeds = ", ".join(map(str, sorted(frame["seed"].unique())))
    run = frame[~frame["never_fired"]]
    n = "/".join(map(str, sorted(run["measured"].unique())))
    among = "those with a touch among " if reading == "choice" else ""
    errors = ", without those that ended in an error" if frame["errors"].any() else ""
    figure.suptitle(
        f"{title}\nmarks: training seeds {seeds}\nbars: 95 % Wilson intervals over {among}{n} episodes{errors}",
        fontsize=9,
    )
    nothing = NOTHING[reading] if run[f"{reading}_rate"].isna().any() else None
    _legend(figure, groups, float(frame["chance"].iloc[0]), float(frame["best_constant"].max()), nothing)
    return figure
