"""The donor-following rate of interventions that have donors."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import leftmost, variant_panels
from analysis.frames import interventions_in_order
from analysis.intervention_frames import with_donors
from analysis.shams import with_shams

SPREAD = 0.65  # share of an intervention's place over which its seeds spread


class FollowFigure(Figure):
    """A panel per variant and a column per intervention: the rate with and, in hollow marks, without it."""

    frame = "paired"

    def applies(self, subject: Subject) -> bool:
        return not with_donors(subject.lines).empty

    def stem(self, subject: Subject) -> str:
        return "follow" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Donor-following rate after memory transplants"

    def draw(self, subject: Subject) -> Drawing:
        donors = with_donors(subject.lines)
        present, seeds = set(donors["variant"]), sorted(donors["seed"].unique())
        variants = [variant for variant in subject.variants if variant in present]
        names = with_shams(interventions_in_order(donors))
        figure, panels = variant_panels(variants, (1.4, 2.2), (0.7, 1.4))
        for axes, variant in zip(panels[0], variants, strict=True):
            lines = donors[donors["variant"] == variant]
            for _, line in lines.iterrows():
                x = [name for name, _ in names].index(line["intervention"])
                at = x + style.offset_of(line["seed"], seeds, SPREAD)
                _mark(axes, line, at, style.mark_of(line["seed"], seeds), subject.colours[variant])
            style.draw_bound(axes, lines["chance"].iloc[0])
            style.finish_panel(axes)
            labels = [f"sham: {name}" if is_sham else name for name, is_sham in names]
            axes.set_xticks(range(len(names)), labels, fontsize=style.TICK, rotation=90)
            axes.set_xlim(-0.6, len(names) - 0.4)
            axes.set_ylim(0, 1.02)
        for axes in leftmost(panels):
            axes.set_ylabel(style.wrapped("donor's target touched first, of all episodes", 24), fontsize=style.LABEL)
        style.set_title(
            figure, self.caption(subject), subject.study, "a mark per training seed; bars: 90 % Wilson intervals"
        )
        handles = style.seed_handles(seeds)
        handles.append(style.handle("same episodes without it", marker="o", color="0.3", markerfacecolor="white"))
        style.legend(figure, handles + style.bound_handles(float(donors["chance"].iloc[0])))
        return figure


def _mark(axes: Axes, line: pd.Series, x: float, mark: str, colour: str) -> None:
    if line["never_fired"]:
        style.write_never_fired(axes, x, 0.02, rotation=90, va="bottom")
        return
    look = {"marker": mark, "color": colour, "markersize": style.MARK, "clip_on": False}
    axes.vlines(x, line["follow_rate_low"], line["follow_rate_high"], color=colour, linewidth=1)
    axes.plot(x, line["follow_with"], **look)
    axes.plot(x, line["follow_without"], **look | {"markerfacecolor": "white", "alpha": 0.6})
