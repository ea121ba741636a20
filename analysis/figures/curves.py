"""A grid of conditions with one axis, drawn as curves."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import leftmost, lowest, variant_panels
from analysis.frames import NEVER_FIRED
from analysis.paired import QUANTITY_TITLES
from muvla.evaluation.records import GridPoint, GridRows


class CurvesFigure(Figure):
    """Rows per quantity, a panel per variant, a line style per curve, and a line with a mark per training seed.

    The values of the horizontal axis stand at equal distances. Where a line has several points at one of them, small
    marks show the points and the line goes through their mean. Hollow marks stand where h exceeds a variant's chunk H.
    Where the intervention never fired, words say so ("k of n" for some points and seeds), and no line passes through.
    """

    frame = "grid"

    def applies(self, subject: Subject) -> bool:
        return subject.probe.y is None

    def stem(self, subject: Subject) -> str:
        return "probe" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return f"{QUANTITY_TITLES[drawn_by(subject.lines)].capitalize()} in probe {subject.probe.id}"

    def draw(self, subject: Subject) -> Drawing:
        lines, grid, variants = subject.lines, subject.probe, list(subject.colours)
        quantities = ("choice", "success") if drawn_by(lines) == "choice" else ("success",)
        positions = {value: i for i, value in enumerate(axis_values(grid.points, grid.x))}
        curves = axis_values(grid.points, grid.curve) if grid.curve else [None]
        seeds = sorted(lines["seed"].unique())
        names = [", ".join([variant, *_chunks(lines, variant)]) for variant in variants]
        figure, panels = variant_panels(names, (1.3, 1.5), (0.6, 1.4), len(quantities))
        crowded = False
        for quantity, row in zip(quantities, panels, strict=True):
            for variant, axes in zip(variants, row, strict=True):
                of_variant, colour = lines[lines["variant"] == variant], subject.colours[variant]
                crowded |= _panel(axes, of_variant, grid, curves, positions, quantity, (colour, seeds))
            for axes in leftmost(row):
                axes.set_ylabel(style.wrapped(QUANTITY_TITLES[quantity]), fontsize=style.LABEL)
        for axes in lowest(panels):
            axes.set_xlabel(grid.x.replace("_", " "), fontsize=style.LABEL)
        style.set_title(
            figure,
            self.caption(subject),
            subject.study,
            "a line per training seed; bars: 90 % Wilson intervals",
        )
        style.legend(figure, style.seed_handles(seeds) + _handles(lines, grid, curves, crowded))
        return figure


def _chunks(lines: pd.DataFrame, variant: str) -> list[str]:
    """The trained chunks of a variant, in a grid over chunk lengths."""
    chunks = lines[lines["variant"] == variant]["H"].unique() if "held" in lines else []
    return [f"H={chunk}" for chunk in chunks]


def axis_values(points: tuple[GridPoint, ...] | list[GridPoint], axis: str) -> list:
    """The values of an axis, sorted where all are numbers, else in order of appearance."""
    values = list(dict.fromkeys(point.coordinates[axis] for point in points))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def drawn_by(lines: pd.DataFrame) -> str:
    """The quantity that a grid is drawn by."""
    return "choice" if lines["choice_n"].any() else "success"


def _handles(lines: pd.DataFrame, grid: GridRows, curves: list, crowded: bool) -> list:
    handles = []
    for i, curve in enumerate(curves):
        label = "all" if curve is None else f"{grid.curve.replace('_', ' ')}: {curve}"
        handles.append(style.handle(label, color="0.3", linestyle=_line(i), alpha=_alpha(i)))
    handles.append(style.handle("chance without memory", color=style.GREY, linestyle="--", linewidth=1))
    if crowded:
        label = "one of several points at one x; the line: their mean"
        handles.append(style.handle(label, marker="o", color=style.GREY, markersize=2))
    if "held" in lines and lines["held"].any():
        label = "h beyond the chunk H: its last action is held"
        handles.append(style.handle(label, marker="o", color=style.GREY, markersize=4, markerfacecolor="white"))
    return handles


def _line(curve: int) -> str:
    return style.LINES[curve % len(style.LINES)]


def _alpha(curve: int) -> float:
    return 0.9 if curve == 0 else 0.5


def _panel(
    axes: Axes,
    lines: pd.DataFrame,
    grid: GridRows,
    curves: list,
    positions: dict,
    quantity: str,
    look: tuple[str, list[int]],
) -> bool:
    """Draws one variant; True if a line has several points at one x. `look`: the colour, and all training seeds."""
    crowded, (colour, seeds) = False, look
    if lines.empty:
        style.write_not_run(axes)
    for i, curve in enumerate(curves):
        of_curve = lines if curve is None else lines[lines[grid.curve] == curve]
        of_curve = of_curve.assign(at=of_curve[grid.x].map(positions)).sort_values("at")
        for seed, of_seed in of_curve.groupby("seed"):
            mark = style.mark_of(seed, seeds)
            line = {"color": colour, "linestyle": _line(i), "marker": mark, "alpha": _alpha(i)}
            crowded |= _curve(axes, of_seed, quantity, line)
        aside = (i - (len(curves) - 1) / 2) * 6  # points: the words of several curves at one x stand side by side
        _write_never_fired(axes, of_curve, aside, colour)
    if quantity == "choice":
        for x, chance in lines.groupby(grid.x)["chance"].first().items():
            at = positions[x]
            axes.hlines(chance, at - 0.4, at + 0.4, color=style.GREY, linestyle="--", linewidth=1, zorder=0)
    style.finish_panel(axes)
    slanted = max(len(str(x)) for x in positions) > 4
    axes.set_xticks(
        range(len(positions)), [str(x) for x in positions], fontsize=style.LABEL, rotation=40 if slanted else 0
    )
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.5, len(positions) - 0.5)
    return crowded


def _curve(axes: Axes, lines: pd.DataFrame, quantity: str, look: dict) -> bool:
    """Draws the line of one training seed; True if it has several points at one x."""
    rates = lines[lines[f"{quantity}_n"] > 0]
    if rates.empty:  # nothing fired or touched; a line without any value has no extent, and would upset the layout
        return False
    rate, colour = f"{quantity}_rate", look["color"]
    several = rates["at"].duplicated(keep=False)
    alone = rates[~several]
    axes.vlines(alone["at"], alone[f"{quantity}_low"], alone[f"{quantity}_high"], color=colour, linewidth=1, alpha=0.45)
    if several.any():
        axes.plot(
            rates["at"][several],
            rates[rate][several],
            **look | {"linestyle": "", "alpha": 0.5},
            markersize=1.6,
            clip_on=False,
        )
    means = rates.groupby("at")[rate].mean().reindex(lines["at"].unique())  # a place without rates breaks the line
    held = set(rates["at"][rates["held"]]) if "held" in rates else set()
    filled = [i for i, at in enumerate(means.index) if at not in held]
    axes.plot(means.index, means, **look, linewidth=1, markersize=3, markevery=filled, clip_on=False)
    if hollow := [i for i in range(len(means)) if i not in filled]:
        face = {"linestyle": "", "markersize": 3.5, "markerfacecolor": "white"}
        axes.plot(means.index[hollow], means.iloc[hollow], **look | face, clip_on=False)
    return bool(several.any())


def _write_never_fired(axes: Axes, lines: pd.DataFrame, aside: float, colour: str) -> None:
    """Writes where one curve never fired, for all its seeds together."""
    for at, here in lines.groupby("at"):
        if silent := int(here["never_fired"].sum()):
            axes.annotate(
                NEVER_FIRED if silent == len(here) else f"{NEVER_FIRED}: {silent} of {len(here)}",
                (at, 0.5),
                (aside, 0),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="center",
                fontsize=style.TINY,
                color=colour,
            )
