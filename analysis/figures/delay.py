"""Accuracy against the length of the delay, over the episodes of plain runs."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import leftmost, lowest, variant_panels


class DelayFigure(Figure):
    """A panel per variant and a line per training seed: first-touch accuracy given a touch by steps of the delay."""

    frame = "delays"

    def applies(self, subject: Subject) -> bool:
        return subject.lines["delay"].nunique() > 1

    def stem(self, subject: Subject) -> str:
        return "delay" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Accuracy against delay by variant and training seed"

    def draw(self, subject: Subject) -> Drawing:
        lines, variants = subject.lines.sort_values("delay"), subject.variants
        seeds = sorted(lines["seed"].unique())
        figure, panels = variant_panels(variants, (1.2, 1.3), (0.8, 1.2))
        for variant, axes in zip(variants, panels[0], strict=True):
            for seed, of_seed in lines[lines["variant"] == variant].groupby("seed"):
                mark = style.mark_of(seed, seeds)
                look = {"color": subject.colours[variant], "marker": mark, "markersize": style.MARK, "linewidth": 0.9}
                axes.plot(of_seed["delay"], of_seed["rate"], **look, clip_on=False)
                axes.vlines(of_seed["delay"], of_seed["low"], of_seed["high"], color=look["color"], alpha=0.4)
            style.draw_bound(axes, lines["chance"].iloc[0])
            axes.set_ylim(0, 1.02)
            axes.set_xticks(sorted(lines["delay"].unique()))
            style.finish_panel(axes, "both")
        for axes in lowest(panels):
            axes.set_xlabel("steps of the delay", fontsize=style.LABEL)
        for axes in leftmost(panels):
            axes.set_ylabel(style.wrapped(lines["quantity"].iloc[0]), fontsize=style.LABEL)
        words = "episodes of one delay; bars: 95 % Wilson intervals"
        style.set_title(figure, self.caption(subject), subject.study, words)
        style.legend(figure, style.seed_handles(seeds) + style.bound_handles(float(lines["chance"].iloc[0])))
        return figure
