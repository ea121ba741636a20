"""Figures of readings, and of how far interventions move the predicted chunk."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.causal import with_shams
from analysis.figures.interventions import bare, legend, say_not_run, variants_of
from analysis.figures.rates import COLOURS
from muvla.evaluation.records import TakenMeasurement

PER_ROW = 6  # interventions side by side
STYLES = ("-", "--", ":", "-.")  # of variants, where there are more of them than colours


def reading_figure(frame: pd.DataFrame, one: TakenMeasurement, variants: list[str], title: str) -> Figure:
    """A reading's frame as its columns declare: a row per curve, which have scales of their own unless they are shares,
    a panel per variant, a line per training seed with its interval as a band."""
    frame = frame.dropna(subset=[c for c in (one.x, one.y, one.curve) if c is not None])
    curves = list(frame[one.curve].drop_duplicates()) if one.curve else [None]
    seeds = sorted(frame["seed"].unique())
    figure = Figure(
        figsize=(max(8.0, 1.4 + 2.2 * len(variants)), 1.6 + (1.5 if len(curves) < 8 else 1.0) * max(1, len(curves))),
        layout="constrained",
    )
    panels = figure.subplots(len(curves) or 1, len(variants), sharex=True, sharey="row", squeeze=False)
    for curve, row in zip(curves, panels, strict=False):
        of_curve = frame if curve is None else frame[frame[one.curve] == curve]
        for variant, axes in zip(variants, row, strict=True):
            lines = of_curve[of_curve["variant"] == variant]
            if lines.empty:
                say_not_run(axes)
            for seed, of_seed in lines.groupby("seed"):
                _band(axes, of_seed.sort_values(one.x), one, COLOURS[seeds.index(seed) % len(COLOURS)])
            if one.chance and not lines.empty:
                bound = lines.groupby(one.x)[one.chance].mean()
                axes.plot(bound.index, bound, color="0.4", linestyle="--", linewidth=1)
            if one.share:
                axes.set_ylim(-0.02, 1.02)
            axes.grid(alpha=0.25)
            axes.tick_params(labelsize=7)
            bare(axes)
        row[0].set_ylabel(_wrapped(one.y if curve is None else str(curve)), fontsize=8)
    for variant, axes, last in zip(variants, panels[0], panels[-1], strict=True):
        axes.set_title(variant, fontsize=9)
        last.set_xlabel(one.x.replace("_", " "), fontsize=8)
    figure.suptitle(f"{title}\na line per training seed; bands: the reading's intervals", fontsize=9)
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=f"seed {s}") for i, s in enumerate(seeds)]
    if one.chance:
        label = f"{one.chance.replace('_', ' ')}, mean over seeds"
        handles.append(Line2D([], [], color="0.4", linestyle="--", label=label))
    legend(figure, handles)
    return figure


def _band(axes: Axes, lines: pd.DataFrame, one: TakenMeasurement, colour: str) -> None:
    axes.plot(lines[one.x], lines[one.y], color=colour, linewidth=1.1, marker="o", markersize=2)
    if one.low and one.high:
        axes.fill_between(
            lines[one.x].astype(float), lines[one.low], lines[one.high], color=colour, alpha=0.15, linewidth=0
        )


def _wrapped(text: str, width: int = 20) -> str:
    words, lines = text.split(), [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < width else [*lines, word]
    return "\n".join(lines)


def chunks_figure(frame: pd.DataFrame, title: str) -> Figure:
    """Of one protocol: how far each intervention moves the predicted chunk, by step since the cue's end; a panel per
    intervention with its shams after it, all of one scale, a colour per variant, a line per training seed."""
    names = with_shams(frame.sort_values("order", kind="stable")["intervention"].drop_duplicates())
    variants, columns = variants_of(frame), min(PER_ROW, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(8.0, 0.8 + 1.75 * columns), 1.6 + 1.35 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    looks = [
        {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i // len(COLOURS) % len(STYLES)]}
        for i in range(len(variants))
    ]
    for (name, is_sham), axes in zip(names, panels.flat, strict=False):
        shown = frame[frame["intervention"] == name]
        for variant, look in zip(variants, looks, strict=True):
            for _, lines in shown[shown["variant"] == variant].sort_values("since_cue").groupby("seed"):
                axes.plot(lines["since_cue"], lines["value"], **look, linewidth=0.9, alpha=0.7)
        axes.set_title(f"{'sham: ' * is_sham}{name}", fontsize=7)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=7)
        bare(axes)
    for i, axes in enumerate(panels.flat):
        if i >= len(names):
            axes.set_visible(False)
        elif i + columns >= len(names):  # the last of its column, whose labels would go with what is hidden below it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("since cue", fontsize=8)
    panels[0, 0].set_ylim(bottom=-0.03 * frame["value"].max())  # what changes nothing is a line above the axis
    for row in panels:
        row[0].set_ylabel("difference", fontsize=8)
    figure.suptitle(
        f"{title}\nmean absolute difference of the predicted chunk, normalised actions, with against without; "
        "a line per training seed",
        fontsize=9,
    )
    legend(figure, [Line2D([], [], **look, label=variant) for variant, look in zip(variants, looks, strict=True)])
    return figure
