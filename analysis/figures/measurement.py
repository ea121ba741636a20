"""A measurement's frame, drawn as the measurement declares its columns."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from pandas.api.types import is_numeric_dtype

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import leftmost, lowest, variant_panels
from muvla.evaluation.records import TakenMeasurement


class MeasurementFigure(Figure):
    """A row per curve and a panel per variant, with a line per training seed and its interval as a band.

    Rows have scales of their own, unless `share` declares values from 0 to 1.
    """

    frame = "measurement"

    def applies(self, subject: Subject) -> bool:
        return True

    def stem(self, subject: Subject) -> str:
        return "probe" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return f"Probe {subject.probe.id} by variant and training seed"

    def draw(self, subject: Subject) -> Drawing:
        taken, variants = subject.probe, list(subject.colours)
        lines = subject.lines.dropna(subset=[c for c in (taken.x, taken.y, taken.curve) if c is not None])
        curves = list(lines[taken.curve].drop_duplicates()) if taken.curve else [None]
        seeds = sorted(lines["seed"].unique())
        size = (1.3, 1.1 if len(curves) < 8 else 0.75)
        figure, panels = variant_panels(variants, size, (0.8, 1.3), len(curves) or 1, same_scale=False)
        for curve, row in zip(curves, panels, strict=False):
            of_curve = lines if curve is None else lines[lines[taken.curve] == curve]
            for variant, axes in zip(variants, row, strict=True):
                _panel(axes, of_curve[of_curve["variant"] == variant], taken, seeds, subject.colours[variant])
            for axes in leftmost(row):
                axes.set_ylabel(style.wrapped(taken.y if curve is None else str(curve)), fontsize=style.LABEL)
        for axes in lowest(panels):
            axes.set_xlabel(taken.x.replace("_", " "), fontsize=style.LABEL)
        style.set_title(
            figure,
            self.caption(subject),
            subject.study,
            "a line per training seed; bands: the measurement's intervals",
        )
        handles = style.seed_handles(seeds)
        if taken.chance:
            label = f"{taken.chance.replace('_', ' ')}, mean over seeds"
            handles.append(Line2D([], [], color=style.GREY, linestyle="--", label=label))
        style.legend(figure, handles)
        return figure


def _panel(axes: Axes, lines: pd.DataFrame, taken: TakenMeasurement, seeds: list[int], colour: str) -> None:
    if lines.empty:
        style.write_not_run(axes)
    for seed, of_seed in lines.groupby("seed"):
        if is_numeric_dtype(of_seed[taken.x]):  # other values stand in the order of the frame
            of_seed = of_seed.sort_values(taken.x).astype({taken.x: float})
        mark = style.mark_of(seed, seeds)
        axes.plot(of_seed[taken.x], of_seed[taken.y], color=colour, linewidth=0.9, alpha=0.8, marker=mark, markersize=2)
        if taken.low and taken.high:
            axes.fill_between(
                of_seed[taken.x], of_seed[taken.low], of_seed[taken.high], color=colour, alpha=0.12, linewidth=0
            )
    if taken.chance and not lines.empty:
        bound = lines.groupby(taken.x, sort=is_numeric_dtype(lines[taken.x]))[taken.chance].mean()
        axes.plot(bound.index, bound, color=style.GREY, linestyle="--", linewidth=1)
    if taken.share:
        axes.set_ylim(-0.02, 1.02)
    style.finish_panel(axes, "both")
