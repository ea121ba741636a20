"""The change of the predicted action chunk under interventions."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.frames import interventions_in_order
from analysis.shams import with_shams

PER_ROW = 6  # panels side by side


class ChunksFigure(Figure):
    """A panel per intervention with its shams after it, all of one scale, and a line per variant and training seed."""

    frame = "chunks"

    def applies(self, subject: Subject) -> bool:
        return True

    def stem(self, subject: Subject) -> str:
        return "chunks" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Change of the predicted action chunk under memory interventions"

    def draw(self, subject: Subject) -> Drawing:
        names = with_shams(interventions_in_order(subject.lines))
        columns = min(PER_ROW, len(names))
        rows = -(-len(names) // columns)
        figure, panels = style.new_figure(
            0.8 + 1.75 * columns, 1.6 + 1.35 * rows, rows, columns, sharex=True, sharey=True
        )
        for (name, is_sham), axes in zip(names, panels.flat, strict=False):
            of_name = subject.lines[subject.lines["intervention"] == name].sort_values("since_cue")
            for variant in subject.variants:
                for _, lines in of_name[of_name["variant"] == variant].groupby("seed"):
                    colour = subject.colours[variant]
                    axes.plot(lines["since_cue"], lines["value"], color=colour, linewidth=0.9, alpha=0.7)
            axes.set_title(f"sham: {name}" if is_sham else name, fontsize=style.TICK)
            style.finish_panel(axes, "both")
        for i, axes in enumerate(panels.flat):
            if i >= len(names):
                axes.set_visible(False)
            elif i + columns >= len(names):  # the last of its column, whose labels a hidden panel below would take
                axes.tick_params(labelbottom=True)
                axes.set_xlabel("steps since the cue's end", fontsize=style.LABEL)
        panels[0, 0].set_ylim(bottom=-0.03 * subject.lines["value"].max())  # a line at 0 stays above the axis
        for row in panels:
            row[0].set_ylabel("difference", fontsize=style.LABEL)
        style.set_title(
            figure,
            self.caption(subject),
            subject.study,
            "mean absolute difference of normalised actions, with against without; a line per training seed",
        )
        style.legend(
            figure, [style.handle(v, color=subject.colours[v], linestyle="-", marker="") for v in subject.variants]
        )
        return figure
