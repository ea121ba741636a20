"""Figures of interventions, and what those of grids and readings share. Each returns a matplotlib Figure; every
training seed is a mark or line of its own, and what has not run or never fired says so."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.by_seed import QUANTITY_TITLES
from analysis.causal import with_donors, with_shams
from analysis.figures.rates import COLOURS
from analysis.frames import NEVER_FIRED, NOT_RUN
from analysis.paired import MARGIN

MARKS = "osD^vP*X<>"  # one per training seed
BAND = "0.9"  # grey of the margin inside which a difference is none


def _seed_marks(seeds: list[int]) -> list[Line2D]:
    return [
        Line2D(
            [], [], marker=MARKS[i % len(MARKS)], linestyle="", color="0.3", markersize=5, label=f"training seed {seed}"
        )
        for i, seed in enumerate(seeds)
    ]


def bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def say_not_run(axes: Axes) -> None:
    axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", va="center", fontsize=9, color="0.4")


def variants_of(frame: pd.DataFrame) -> list[str]:
    """In the study's order."""
    return list(frame.sort_values("order")["variant"].drop_duplicates())


def legend(figure: Figure, handles: list) -> None:
    """Below everything, in as many columns as the longest entry leaves room for."""
    column = 0.6 + 0.066 * max(len(handle.get_label()) for handle in handles)  # inches, of 8-point letters
    columns = max(1, min(len(handles), 6, int(figure.get_figwidth() // column)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def paired_figure(frame: pd.DataFrame, quantity: str, title: str) -> Figure:
    """Of one protocol: the paired difference with its 90 % interval, a panel per variant, a row per intervention with
    its shams under it, a mark per training seed; a cross where no pair says anything, and in words where it never
    fired."""
    variants, seeds = variants_of(frame), sorted(frame["seed"].unique())
    names = with_shams(frame.sort_values("order")["intervention"].drop_duplicates())
    height = 1.6 + max(2.0, (0.12 + 0.09 * len(seeds)) * len(names))
    figure = Figure(figsize=(max(8.0, 2.6 + 2.3 * len(variants)), height), layout="constrained")
    panels = figure.subplots(1, len(variants), sharey=True, sharex=True, squeeze=False)[0]
    for axes, variant in zip(panels, variants, strict=True):
        lines = frame[frame["variant"] == variant].set_index(["intervention", "seed"])
        axes.axvspan(-MARGIN, MARGIN, color=BAND, zorder=0)
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        for y, (name, is_sham) in enumerate(names):
            if name not in lines.index.get_level_values(0):
                axes.text(0, y, NOT_RUN, ha="center", va="center", fontsize=7, color="0.4")
                continue
            for i, seed in enumerate(seeds):
                if (name, seed) in lines.index:
                    line, at = lines.loc[(name, seed)], y + (i - (len(seeds) - 1) / 2) * 0.8 / max(1, len(seeds))
                    _difference(
                        axes, line.iloc[0] if isinstance(line, pd.DataFrame) else line, at, quantity, i, is_sham
                    )
        axes.set_title(variant, fontsize=9)
        axes.set_xlim(-1.08, 1.08)
        axes.set_xticks((-1, -0.5, 0, 0.5, 1), ("−1", "−0.5", "0", "0.5", "1"), fontsize=8)
        axes.grid(axis="x", alpha=0.25)
        bare(axes)
    panels[0].set_yticks(range(len(names)), [f"sham: {n}" if sham else n for n, sham in names], fontsize=8)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(
        f"{title}\npaired difference of {QUANTITY_TITLES[quantity]}, with less without; bars: 90 %", fontsize=9
    )
    handles = [
        *_seed_marks(seeds),
        Line2D([], [], color=COLOURS[0], label="intervention"),
        Line2D([], [], color=COLOURS[4], label="its sham"),
        Patch(color=BAND, label=f"null: inside ±{MARGIN:.2f}"),
    ]
    if (frame[f"{quantity}_difference"].isna() & ~frame["never_fired"]).any():
        handles.append(Line2D([], [], marker="x", linestyle="", color="0.2", label="no pair of episodes to compare"))
    legend(figure, handles)
    return figure


def _difference(axes: Axes, line: pd.Series, y: float, quantity: str, number: int, is_sham: bool) -> None:
    colour = COLOURS[4] if is_sham else COLOURS[0]
    if line["never_fired"]:
        axes.text(0, y, NEVER_FIRED, ha="center", va="center", fontsize=5, color="0.4")
        return
    if pd.isna(line[f"{quantity}_difference"]):
        axes.plot(0, y, marker="x", color=colour, markersize=4)
        return
    axes.hlines(y, line[f"{quantity}_low"], line[f"{quantity}_high"], color=colour, linewidth=1)
    axes.plot(line[f"{quantity}_difference"], y, marker=MARKS[number % len(MARKS)], color=colour, markersize=3.5)


def follow_figure(frame: pd.DataFrame, title: str) -> Figure | None:
    """Of one protocol, its interventions with donors: how often the donor's target is chosen, a column per
    intervention; filled marks under it with the 90 % interval, hollow ones in the same episodes without it; in
    words where it never fired."""
    donors = with_donors(frame)
    if donors.empty:
        return None
    variants, seeds = variants_of(donors), sorted(donors["seed"].unique())
    names = with_shams(donors.sort_values("order")["intervention"].drop_duplicates())
    figure = Figure(figsize=(max(8.0, 1.4 + 2.1 * len(variants)), 4.4), layout="constrained")
    panels = figure.subplots(1, len(variants), sharey=True, squeeze=False)[0]
    for axes, variant in zip(panels, variants, strict=True):
        lines = donors[donors["variant"] == variant]
        for _, line in lines.iterrows():
            x, i = [n for n, _ in names].index(line["intervention"]), seeds.index(line["seed"])
            colour, at = COLOURS[4] if names[x][1] else COLOURS[0], x + (i - (len(seeds) - 1) / 2) * 0.13
            if line["never_fired"]:
                axes.text(at, 0.02, NEVER_FIRED, rotation=90, ha="center", va="bottom", fontsize=5, color="0.4")
                continue
            mark = {"marker": MARKS[i % len(MARKS)], "color": colour, "markersize": 4, "clip_on": False}
            axes.vlines(at, line["follow_rate_low"], line["follow_rate_high"], color=colour, linewidth=1)
            axes.plot(at, line["follow_with"], **mark)
            axes.plot(at, line["follow_without"], **mark | {"markerfacecolor": "white", "alpha": 0.6})
        if pd.notna(chance := lines["chance"].iloc[0]):
            axes.axhline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
        labels = [n.replace("@", "\n@") for n, _ in names]
        axes.set_xticks(range(len(names)), labels, fontsize=7, rotation=40, ha="right")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylim(0, 1.02)
        axes.set_title(variant, fontsize=9)
        axes.grid(axis="y", alpha=0.25)
        bare(axes)
    panels[0].set_ylabel("donor's target chosen, of all episodes", fontsize=9)
    figure.suptitle(f"{title}\nbars: 90 % Wilson intervals", fontsize=9)
    handles = [
        *_seed_marks(seeds),
        Line2D([], [], marker="o", linestyle="", color=COLOURS[0], label="intervention"),
        Line2D([], [], marker="o", linestyle="", color=COLOURS[4], label="sham"),
        Line2D(
            [], [], marker="o", linestyle="", color="0.3", markerfacecolor="white", label="same episodes without it"
        ),
        Line2D([], [], color="0.4", linestyle="--", label="chance"),
    ]
    legend(figure, handles)
    return figure
