"""Success over updates, where variants were trained for several lengths."""

from __future__ import annotations

import math
from typing import ClassVar

from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import leftmost, lowest, variant_panels
from analysis.frames import has_several_lengths


class UpdatesFigure(Figure):
    """A panel per variant and a line per training seed: success without intervention after every training length."""

    frame = "rates"
    x: ClassVar[str] = "U"  # column of the horizontal axis

    def applies(self, subject: Subject) -> bool:
        plain = subject.lines[subject.lines["intervention"] == "none"]
        return has_several_lengths(plain)

    def stem(self, subject: Subject) -> str:
        return "updates" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Success over updates by variant and training seed"

    def bound(self, subject: Subject) -> tuple[float, list]:
        """A level across all panels with its legend entries; nan for none."""
        return math.nan, []

    def draw(self, subject: Subject) -> Drawing:
        lines = subject.lines.sort_values(self.x)
        if "intervention" in lines:
            lines = lines[lines["intervention"] == "none"]
        level, handles = self.bound(subject)
        variants, seeds = subject.variants, sorted(lines["seed"].unique())
        figure, panels = variant_panels(variants, (1.2, 1.3), (0.8, 1.2))
        for variant, axes in zip(variants, panels[0], strict=True):
            for seed, of_seed in lines[lines["variant"] == variant].groupby("seed"):
                mark = style.mark_of(seed, seeds)
                look = {"color": subject.colours[variant], "marker": mark, "markersize": style.MARK, "linewidth": 0.9}
                axes.plot(of_seed[self.x], of_seed["success_rate"], **look, clip_on=False)
                axes.vlines(
                    of_seed[self.x], of_seed["success_low"], of_seed["success_high"], color=look["color"], alpha=0.4
                )
            style.draw_bound(axes, level)
            axes.set_ylim(0, 1.02)
            axes.set_xticks(sorted(lines[self.x].unique()))
            style.finish_panel(axes, "both")
        for axes in lowest(panels):
            axes.set_xlabel("updates", fontsize=style.LABEL)
        for axes in leftmost(panels):
            axes.set_ylabel("success", fontsize=style.LABEL)
        words = "a line per training seed; bars: 95 % Wilson intervals"
        style.set_title(figure, self.caption(subject), subject.study, words)
        style.legend(figure, [*style.seed_handles(seeds), *handles])
        return figure
