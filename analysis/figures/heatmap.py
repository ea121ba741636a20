"""A grid of conditions with two axes, drawn as heatmaps of one variant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Drawing
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.curves import axis_values, drawn_by
from analysis.frames import NEVER_FIRED
from analysis.paired import QUANTITY_TITLES
from muvla.evaluation.records import GridRows

NUMBER = 0.42  # inches: the narrowest field that holds a number; the panel of means has such fields
MOST = 0.6  # share of the width that the panel of means may take; seeds' panels have colours alone
LINE = 0.13  # inches: a line of a field's words
FEW = 20  # episodes: a rate or difference over fewer has no colour, and shows its n
PALE = "0.88"  # a field over few episodes

# What a field shows besides its number → its legend entry.
LEGEND = {
    "few": Patch(
        facecolor=PALE,
        edgecolor="0.6",
        hatch="////",
        label=f"fewer than {FEW} episodes: n (of means, that of the seed with the fewest)",
    ),
    "part": Patch(
        facecolor="none",
        edgecolor="0.6",
        hatch="....",
        label="k/N: mean over k of the column's N seeds, the others have no value",
    ),
    "none": style.handle("no episode counts", marker="$–$", color="0.2"),
    "never": style.handle(NEVER_FIRED, marker="x", color="0.2", markersize=4),
}


@dataclass(frozen=True)
class Band:
    """A row of panels: the rates or the paired differences of one curve."""

    curve: object
    lines: pd.DataFrame
    ys: list
    value: str  # column of the number
    n: str  # column of the episodes
    colours: str
    limits: tuple[int, int]


@dataclass
class Fields:
    """One panel's axes, and the legend entries that the fields drawn so far need."""

    grid: GridRows
    xs: list
    used: set[str] = field(default_factory=set)


class HeatmapFigure(Figure):
    """The rates of one variant and, where the grid has a plain point, the paired differences from it.

    A row per value of `curve`; the mean over training seeds first with numbers, and then every seed in colours. A field
    over fewer than `FEW` episodes has no colour. A mean over some of its column's seeds is dotted. A point that has not
    run is empty.
    """

    frame = "grid"
    per_variant = True

    def applies(self, subject: Subject) -> bool:
        return subject.probe.y is not None

    def stem(self, subject: Subject) -> str:
        return f"probe{subject.suffix}-{slug(subject.variant)}"

    def caption(self, subject: Subject) -> str:
        quantity = QUANTITY_TITLES[drawn_by(subject.lines)].capitalize()
        return f"{quantity} of {subject.variant} in probe {subject.probe.id}"

    def draw(self, subject: Subject) -> Drawing:
        quantity, grid = drawn_by(subject.lines), subject.probe
        seeds, xs = sorted(subject.lines["seed"].unique()), axis_values(grid.points, grid.x)
        lines = subject.lines[subject.lines["variant"] == subject.variant]
        rates, differences = _bands(lines, grid, quantity)
        bands, fields = rates + differences, Fields(grid, xs)
        columns = [("mean over seeds", seeds), *((f"seed {seed}", [seed]) for seed in seeds)]
        mean = min(MOST, NUMBER * len(xs) / style.PAGE)
        heights = [max(0.27, LINE * _most_words(band, grid, seeds) + 0.08) for band in bands]
        figure, panels = style.new_figure(
            style.PAGE,
            1.4 + sum(height * len(band.ys) + 0.25 for height, band in zip(heights, bands, strict=True)),
            len(bands),
            len(columns),
            sharex=True,
            sharey="row",
            height_ratios=[height * len(band.ys) for height, band in zip(heights, bands, strict=True)],
            width_ratios=[max(1.0, mean / (1 - mean) * len(seeds)), *[1] * len(seeds)],
        )
        images = []
        for band, row in zip(bands, panels, strict=True):
            images.append(
                [_panel(axes, band, wanted, fields) for (_, wanted), axes in zip(columns, row, strict=True)][-1]
            )
            curve = "" if band.curve is None else f"{band.curve}\n"
            row[0].set_ylabel(curve + grid.y.replace("_", " "), fontsize=style.LABEL)
        for (name, _), top, bottom in zip(columns, panels[0], panels[-1], strict=True):
            top.set_title(name, fontsize=style.LABEL)
            bottom.set_xlabel(grid.x.replace("_", " "), fontsize=style.LABEL)
        _bar(figure, panels[: len(rates)], images[0], style.wrapped(QUANTITY_TITLES[quantity]))
        _bar(figure, panels[len(rates) :], images[-1], "paired difference,\nminus without")
        chance = lines["chance"].iloc[0]
        bound = "" if pd.isna(chance) else f"chance without memory {chance:.2f}"
        style.set_title(figure, self.caption(subject), subject.study, bound)
        style.legend(figure, [entry for name, entry in LEGEND.items() if name in fields.used])
        return figure


def slug(text: str) -> str:
    """The text in lower case, with hyphens between its words, for file names."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _most_words(band: Band, grid: GridRows, seeds: list[int]) -> int:
    """Lines of words in the fullest field of the panel of means: a number, few episodes, missing seeds."""
    most = 1
    for _, here in band.lines.groupby([grid.y, grid.x], sort=False):
        measured = here[here[band.value].notna()]
        few = len(measured) > 0 and measured[band.n].min() < FEW
        counted = measured if len(measured) else here[~here["never_fired"]]
        most = max(most, 1 + few + (counted["seed"].nunique() < len(seeds)))
    return most


def _bands(lines: pd.DataFrame, grid: GridRows, quantity: str) -> tuple[list[Band], list[Band]]:
    """The rows of rates, and the rows of differences of the curves that have a plain point."""
    rates, differences = [], []
    for curve in axis_values(grid.points, grid.curve) if grid.curve else [None]:
        points = [p for p in grid.points if curve is None or p.coordinates[grid.curve] == curve]
        of_curve = lines if curve is None else lines[lines[grid.curve] == curve]
        ys = axis_values(points, grid.y)
        rates.append(Band(curve, of_curve, ys, f"{quantity}_rate", f"{quantity}_n", "viridis", (0, 1)))
        if (of_curve["difference_n"] > 0).any():
            ys = axis_values([p for p in points if p.intervention != "none"], grid.y)
            changed = of_curve[of_curve["condition"] != "none"]
            differences.append(Band(curve, changed, ys, "difference", "difference_n", "RdBu", (-1, 1)))
    return rates, differences


def _bar(figure: Drawing, panels: np.ndarray, image: AxesImage, label: str) -> None:
    if panels.size:
        bar = figure.colorbar(image, ax=panels, fraction=0.02)
        bar.set_label(label, fontsize=style.LABEL)
        bar.ax.tick_params(labelsize=style.TICK)


def _panel(axes: Axes, band: Band, seeds: list[int], fields: Fields) -> AxesImage:
    """Draws the fields of one band for these training seeds."""
    lines = band.lines[band.lines["seed"].isin(seeds)]
    places = {
        (band.ys.index(y), fields.xs.index(x)): here
        for (y, x), here in lines.groupby([fields.grid.y, fields.grid.x], sort=False)
    }
    means = np.full((len(band.ys), len(fields.xs)), np.nan)
    for place, here in places.items():
        means[place] = here[band.value].mean()
    low, high = band.limits
    image = axes.imshow(means, vmin=low, vmax=high, cmap=band.colours, aspect="auto")
    for place, here in places.items():
        _field(axes, place, here, band, len(seeds), image, fields)
    if lines.empty:
        style.write_not_run(axes)
    axes.set_xticks(range(len(fields.xs)), [str(x) for x in fields.xs], fontsize=style.TICK)
    axes.set_yticks(range(len(band.ys)), [str(y) for y in band.ys], fontsize=style.TICK)
    return image


def _field(
    axes: Axes, place: tuple[int, int], here: pd.DataFrame, band: Band, seeds: int, image: AxesImage, fields: Fields
) -> None:
    """Writes one field's number, or the reason why there is none, and marks what qualifies the number."""
    row, column = place
    measured, run = here[here[band.value].notna()], here[~here["never_fired"]]
    marks = []
    if not measured.empty:
        counted, mean = measured, measured[band.value].mean()
        ground = image.cmap(image.norm(mean))
        sign = "+" if band.limits[0] < 0 else ""
        words = [f"{mean:{sign}.2f}".replace("0.", ".")]
        if (fewest := measured[band.n].min()) < FEW:
            marks, ground = ["few"], to_rgba(PALE)
            words.append(f"n {fewest:.0f}")
    else:
        name, symbol, counted = ("never", "×", here) if run.empty else ("none", "–", run)
        words, ground = [symbol], to_rgba("w")
        fields.used.add(name)
    if (count := counted["seed"].nunique()) < seeds:
        marks.append("part")
        words.append(f"{count}/{seeds}")
    for mark in marks:
        look = LEGEND[mark]
        box = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=PALE if mark == "few" else "none", lw=0)
        box.set(edgecolor="0.6", hatch=look.get_hatch())
        axes.add_patch(box)
    fields.used.update(marks)
    if seeds == 1 and not measured.empty:  # a seed's panel has no room for numbers
        return
    dark = 0.3 * ground[0] + 0.6 * ground[1] + 0.1 * ground[2] < 0.5
    axes.text(
        column,
        row,
        "\n".join(words),
        ha="center",
        va="center",
        fontsize=style.TINY,
        color="w" if dark else "k",
        bbox={"facecolor": ground, "edgecolor": "none", "pad": 0.6} if marks else None,
    )
