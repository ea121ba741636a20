"""Performance profiles: the share of all tasks and training seeds above every score.

Source: R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.frames import METRIC_TITLES
from muvla.stats.aggregates import performance_profile

THRESHOLDS = np.linspace(0, 1, 101)


class ProfileFigure(Figure):
    """A line per variant: the share of task × training seed with a score above the value of the x axis."""

    frame = "tasks"

    def applies(self, subject: Subject) -> bool:
        return subject.lines["task"].nunique() > 1

    def stem(self, subject: Subject) -> str:
        return "profile" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Performance profile by variant over tasks and training seeds"

    def draw(self, subject: Subject) -> Drawing:
        figure, panels = style.new_figure(style.COLUMN, 2.6, 1, 1)
        axes, lines = panels[0, 0], subject.lines
        handles = []
        for i, variant in enumerate(subject.variants):
            scores = lines[lines["variant"] == variant]["score"].dropna()
            look = {"color": subject.colours[variant], "linestyle": style.LINES[i % len(style.LINES)]}
            handles += axes.plot(
                THRESHOLDS, performance_profile(scores, THRESHOLDS), label=variant, linewidth=1.1, **look
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(METRIC_TITLES[lines["metric"].iloc[0]], fontsize=style.LABEL)
        axes.set_ylabel("share of tasks × seeds above", fontsize=style.LABEL)
        style.finish_panel(axes, "both")
        style.set_title(figure, self.caption(subject), subject.study)
        style.legend(figure, handles)
        return figure
