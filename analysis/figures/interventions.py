"""The metric under every intervention, beside the plain run."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from analysis.figures.base import Figure, Subject
from analysis.figures.rates import length_panels, rate_panels
from analysis.frames import METRIC_TITLES, interventions_in_order, metric_of

PER_ROW = 6  # panels side by side


class InterventionRatesFigure(Figure):
    """A panel per intervention, the plain run first, and rows for every training length."""

    frame = "rates"

    def applies(self, subject: Subject) -> bool:
        return bool((subject.lines["intervention"] != "none").any())

    def stem(self, subject: Subject) -> str:
        return "interventions" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return f"{METRIC_TITLES[metric_of(subject.lines)].capitalize()} under memory interventions"

    def draw(self, subject: Subject) -> Drawing:
        changed = subject.lines[subject.lines["intervention"] != "none"]["variant"]
        shown = subject.lines[subject.lines["variant"].isin(changed)]
        names, rows = interventions_in_order(shown), []
        for length, us in length_panels(shown):
            lines = shown[shown["U"].isin(us)]
            panels = [(name, lines[lines["intervention"] == name]) for name in names]
            rows += [(f"{length}\n", panels[i : i + PER_ROW]) for i in range(0, len(panels), PER_ROW)]
        return rate_panels(subject, shown, rows, self.caption(subject))
