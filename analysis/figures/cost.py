"""Accuracy against the cost of a memory."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.frames import METRIC_TITLES, metric_of

COSTS = {"model FLOPs/tick": "FLOPs of the model per tick", "bytes/slot": "bytes carried per slot"}


class CostFigure(Figure):
    """A panel per part of the cost, and a mark per variant and training seed, without intervention."""

    frame = "costs"

    def applies(self, subject: Subject) -> bool:
        return any(subject.lines[column].nunique() > 1 for column in COSTS)

    def stem(self, subject: Subject) -> str:
        return "cost" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Accuracy against cost by variant and training seed"

    def draw(self, subject: Subject) -> Drawing:
        lines, metric = subject.lines, metric_of(subject.lines)
        seeds = sorted(lines["seed"].unique())
        figure, panels = style.new_figure(style.PAGE, 3.0, 1, len(COSTS), sharey=True)
        for (column, title), axes in zip(COSTS.items(), panels[0], strict=True):
            for _, line in lines.iterrows():
                colour, mark = subject.colours[line["variant"]], style.mark_of(line["seed"], seeds)
                look = {"color": colour, "marker": mark, "markersize": style.MARK, "clip_on": False, "alpha": 0.8}
                axes.plot(line[column], line[f"{metric}_rate"], **look)
            axes.set_xlabel(title, fontsize=style.LABEL)
            axes.set_ylim(0, 1.02)
            style.draw_bound(axes, lines["chance"].iloc[0])
            style.finish_panel(axes, "both")
            axes.xaxis.get_offset_text().set_fontsize(style.TICK)
        panels[0, 0].set_ylabel(style.wrapped(METRIC_TITLES[metric]), fontsize=style.LABEL)
        style.set_title(figure, self.caption(subject), subject.study, "a mark per training seed")
        style.legend(figure, style.variant_handles(subject.colours, subject.variants) + style.seed_handles(seeds))
        return figure
