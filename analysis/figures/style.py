"""Colours, fonts, sizes and legends of every figure.

A variant has one colour in all figures of a study. Everything else that a figure tells apart has another channel:
training seeds have marks, curves of one variant have line styles, and a sham has hollow marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.frames import NEVER_FIRED, NOT_RUN

# Okabe-Ito and then Tol's muted scheme, both safe for colour-blind readers.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
    "#999933",
    "#332288",
    "#AA4499",
    "#661100",
    "#117733",
    "#888888",
)
MARKS = "osD^vP*X<>"  # one per training seed
LINES = ("-", "--", ":", "-.")  # one per curve of a variant
GREY = "0.4"  # bounds, and words in a panel
BAND = "0.9"  # the margin inside which a difference is null

TEXT, LABEL, TICK, TINY = 8, 8, 7, 7  # points
MARK = 3.5  # points
COLUMN, PAGE, TALLEST = 3.25, 6.75, 8.8  # inches: widths of a paper's column and page, and the highest figure
DPI = 200
# Fonts as Type 42, which a publisher accepts. Marks and lines suit letters of 7 and 8 points.
LOOK = {"pdf.fonttype": 42, "ps.fonttype": 42, "axes.linewidth": 0.6, "xtick.major.size": 2, "ytick.major.size": 2}


def assign_colours(variants: Iterable[str]) -> dict[str, str]:
    """Maps every variant to its colour, in the study's order of variants."""
    return {variant: COLOURS[i % len(COLOURS)] for i, variant in enumerate(dict.fromkeys(variants))}


def new_figure(width: float, height: float, rows: int, columns: int, **options) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of panels.

    Args:
        width: inches that the panels ask for; the figure is as wide as a column where they fit, else as a page.
        height: inches; at most `TALLEST` is used.
        rows: rows of panels.
        columns: columns of panels.
        options: further arguments of `matplotlib.figure.Figure.subplots`.

    Returns:
        The figure, and its panels as an array of shape (rows, columns).
    """
    size = (COLUMN if width <= COLUMN else PAGE, min(height, TALLEST))
    with rc_context(LOOK):
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def set_title(figure: Figure, title: str, *lines: str) -> None:
    """The descriptive title, and lines that explain marks and intervals; long lines are wrapped.

    A report prints the title in PNG files. PDF files have none: a paper's caption takes its place.
    """
    letters = int(15 * figure.get_figwidth())  # that fit into a line
    figure.suptitle("\n".join(wrapped(line, letters) for line in (title, *lines) if line), fontsize=TEXT)


def finish_panel(axes: Axes, grid: str = "y") -> None:
    """Removes the frame's upper and right side and draws a faint grid along this axis ("x", "y" or "both")."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, alpha=0.25)
    axes.tick_params(labelsize=TICK)


def write_not_run(axes: Axes) -> None:
    axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", va="center", fontsize=TEXT, color=GREY)


def write_never_fired(axes: Axes, x: float, y: float, rotation: float = 0, va: str = "center") -> None:
    axes.text(x, y, NEVER_FIRED, rotation=rotation, ha="center", va=va, fontsize=TINY, color=GREY)


def draw_bound(axes: Axes, value: float, style: str = "--") -> None:
    """A horizontal line at a bound without memory; nothing where the bound is not known (NaN)."""
    if pd.notna(value):
        axes.axhline(value, color=GREY, linestyle=style, linewidth=1, zorder=0)


def mark_of(seed: int, seeds: Sequence[int]) -> str:
    """The mark of a training seed; more seeds than there are marks all have one, since repeated marks mislead."""
    return MARKS[list(seeds).index(seed)] if len(seeds) <= len(MARKS) else MARKS[0]


def offset_of(seed: int, seeds: Sequence[int], spread: float) -> float:
    """Displacement of a seed's mark, so that the seeds of a variant spread over this width."""
    return (list(seeds).index(seed) - (len(seeds) - 1) / 2) * spread / max(1, len(seeds))


def seed_handles(seeds: Sequence[int]) -> list[Line2D]:
    """Legend entries of the seeds; one entry for more seeds than there are marks."""
    if len(seeds) > len(MARKS):
        return [handle(f"one of {len(seeds)} training seeds", marker=MARKS[0], color="0.3")]
    return [handle(f"training seed {seed}", marker=mark_of(seed, seeds), color="0.3") for seed in seeds]


def seeds_text(seeds: Sequence[int]) -> str:
    """The seeds in words: "0, 1, 2", or "0 to 19" for many that follow each other."""
    seeds = [int(seed) for seed in seeds]
    if len(seeds) > len(MARKS) and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def variant_handles(colours: dict[str, str], variants: Iterable[str]) -> list[Line2D]:
    return [handle(variant, color=colours[variant], marker="o") for variant in variants]


def bound_handles(chance: float = float("nan"), constant: float = float("nan")) -> list[Line2D]:
    """Legend entries of the bounds that are known."""
    handles = []
    if pd.notna(chance):
        label = f"chance without memory ({chance:.2f})"
        handles.append(Line2D([], [], color=GREY, linestyle="--", label=label))
    if pd.notna(constant):
        label = f"always the most frequent target ({constant:.2f})"
        handles.append(Line2D([], [], color=GREY, linestyle=":", label=label))
    return handles


def handle(label: str, **look) -> Line2D:
    """A legend entry without data; marks have no line unless `linestyle` is given."""
    return Line2D([], [], label=label, **({"linestyle": "", "markersize": 5} | look))


def legend(figure: Figure, handles: list) -> None:
    """The legend below all panels, in as many columns as its longest entry leaves room for."""
    if not handles:
        return
    column = 0.45 + 0.056 * max(len(entry.get_label()) for entry in handles)  # inches, for letters of 7 points
    columns = max(1, min(len(handles), 6, int(figure.get_figwidth() // column)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=TICK)


def wrapped(text: str, width: int = 20) -> str:
    words, lines = text.split(), [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < width else [*lines, word]
    return "\n".join(lines)
