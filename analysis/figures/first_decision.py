"""The error at the first step of the decision over updates, in training and on held-out demonstrations."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import leftmost, lowest, variant_panels
from analysis.training_log import FIRST_DECISION

LINES = dict(zip(FIRST_DECISION.values(), (":", "-"), strict=True))


class FirstDecisionFigure(Figure):
    """A panel per variant, and two lines per training seed: dotted in training, solid on held-out demonstrations."""

    frame = "training"

    def applies(self, subject: Subject) -> bool:
        return bool((subject.lines["demonstrations"] == FIRST_DECISION["loss_at_first_decision_held_out"]).any())

    def stem(self, subject: Subject) -> str:
        return "first-decision" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Action error at the first decision step, in training and on held-out demonstrations"

    def draw(self, subject: Subject) -> Drawing:
        lines, variants, seeds = subject.lines, subject.variants, sorted(subject.lines["seed"].unique())
        figure, panels = variant_panels(variants, (1.2, 1.3), (0.8, 1.4))
        for variant, axes in zip(variants, panels[0], strict=True):
            of_variant = lines[lines["variant"] == variant]
            for (seed, demonstrations), of_seed in of_variant.groupby(["seed", "demonstrations"]):
                look = {"color": subject.colours[variant], "linestyle": LINES[demonstrations], "linewidth": 0.9}
                mark = {"marker": style.mark_of(seed, seeds), "markersize": style.MARK, "markevery": [-1]}
                axes.plot(of_seed["update"], of_seed["error"], **look, **mark, clip_on=False)
            style.finish_panel(axes, "both")
        panels[0, 0].set_ylim(0, None)
        for axes in lowest(panels):
            axes.set_xlabel("updates", fontsize=style.LABEL)
        for axes in leftmost(panels):
            axes.set_ylabel("action error", fontsize=style.LABEL)
        style.set_title(figure, self.caption(subject), subject.study, "the loss's error, two lines per training seed")
        handles = [style.handle(name, color="0.3", linestyle=line) for name, line in LINES.items()]
        style.legend(figure, [*handles, *style.seed_handles(seeds)])
        return figure
