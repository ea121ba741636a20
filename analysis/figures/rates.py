"""The main figure: each variant's metric, without intervention."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.frames import METRIC_TITLES, has_several_lengths, metric_of

SPREAD = 0.5  # share of a variant's place over which its seeds spread
# The meaning of a cross at 0, by metric: a rate is missing because no episode counts.
NOTHING = {"choice": "nothing touched in any episode", "success": "every episode ended in an error"}


class RatesFigure(Figure):
    """The metric of a protocol by variant, with a panel per training length where a variant has several."""

    frame = "rates"

    def applies(self, subject: Subject) -> bool:
        return bool((subject.lines["intervention"] == "none").any())

    def stem(self, subject: Subject) -> str:
        return metric_of(subject.lines) + subject.suffix

    def caption(self, subject: Subject) -> str:
        return f"{METRIC_TITLES[metric_of(subject.lines)].capitalize()} by variant and training seed"

    def draw(self, subject: Subject) -> Drawing:
        lines = subject.lines[subject.lines["intervention"] == "none"]
        panels = [(f"{name} updates", lines[lines["U"].isin(us)]) for name, us in length_panels(lines)]
        return rate_panels(subject, lines, [("", panels)], self.caption(subject))


def length_panels(lines: pd.DataFrame) -> list[tuple[str, list[int]]]:
    """(name, training lengths U) of each panel: one length each where a variant has several, else all lengths."""
    lengths = sorted(lines["U"].unique())
    if len(lengths) == 1 or has_several_lengths(lines):
        return [(f"U = {u}", [u]) for u in lengths]
    return [(f"U = {lengths[0]} to {lengths[-1]}", lengths)]


def rate_panels(
    subject: Subject,
    lines: pd.DataFrame,
    rows: list[tuple[str, list[tuple[str, pd.DataFrame]]]],
    title: str,
) -> Drawing:
    """Rows of panels with a mark per variant and training seed.

    Args:
        subject: gives colours and order of variants.
        lines: all lines of the figure.
        rows: (label, panels) per row, each panel (title, lines); a title is not repeated under itself.
        title: the figure's title.
    """
    present = set(lines["variant"])
    variants, metric = [variant for variant in subject.variants if variant in present], metric_of(subject.lines)
    columns = max(len(panels) for _, panels in rows)
    width = 1.1 + 1.0 * len(variants) * columns  # a column of the paper for two variants
    figure, grid = style.new_figure(width, 1.9 + 1.7 * len(rows), len(rows), columns, sharex=True, sharey=True)
    above: list[str] = []
    for (label, panels), row in zip(rows, grid, strict=True):
        for (name, of_panel), axes in zip(panels, row, strict=False):
            draw_rates(axes, of_panel, variants, subject.colours, metric)
            axes.set_title("" if name in above else name, fontsize=style.TEXT)
        for axes in row[len(panels) :]:
            axes.set_visible(False)
        row[0].set_ylabel(label + style.wrapped(METRIC_TITLES[metric]), fontsize=style.LABEL)
        above += [name for name, _ in panels]
    for column in grid.T:  # panels that are hidden below would take their column's labels with them
        [axes for axes in column if axes.get_visible()][-1].tick_params(labelbottom=True)
    style.set_title(figure, title, subject.study, _explanation(lines, metric))
    run = lines[~lines["never_fired"]]
    handles = style.seed_handles(sorted(lines["seed"].unique()))
    handles += style.bound_handles(float(lines["chance"].iloc[0]), float(lines["best_constant"].max()))
    if run[f"{metric}_rate"].isna().any():
        handles.append(style.handle(NOTHING[metric], marker="x", color="0.2"))
    style.legend(figure, handles)
    return figure


def _explanation(lines: pd.DataFrame, metric: str) -> str:
    n = "/".join(map(str, sorted(lines[~lines["never_fired"]]["measured"].unique())))
    among = "the episodes with a touch among " if metric == "choice" else ""
    errors = ", without those that ended in an error" if lines["errors"].any() else ""
    return f"a mark per training seed; bars: 95 % Wilson intervals over {among}{n} episodes{errors}"


def draw_rates(axes: Axes, lines: pd.DataFrame, variants: list[str], colours: dict[str, str], metric: str) -> None:
    """A mark with its 95 % Wilson interval per variant and seed.

    A cross at 0 stands where no episode counts, and words where the intervention never fired.

    Args:
        axes: the panel.
        lines: tidy lines of the panel.
        variants: order of the horizontal axis.
        colours: variant → colour.
        metric: key of `analysis.frames.METRICS`.
    """
    seeds = sorted(lines["seed"].unique())
    for _, line in lines.iterrows():
        x = variants.index(line["variant"]) + style.offset_of(line["seed"], seeds, SPREAD)
        colour, rate = colours[line["variant"]], line[f"{metric}_rate"]
        if line["never_fired"]:
            style.write_never_fired(axes, x, 0.02, rotation=90, va="bottom")
        elif pd.isna(rate):
            axes.plot(x, 0, marker="x", color=colour, markersize=5, clip_on=False)
        else:
            axes.vlines(x, line[f"{metric}_low"], line[f"{metric}_high"], color=colour, linewidth=1.2, alpha=0.7)
            mark = style.mark_of(line["seed"], seeds)
            axes.plot(x, rate, marker=mark, color=colour, markersize=style.MARK, clip_on=False)
    if not lines.empty:
        style.draw_bound(axes, lines["chance"].iloc[0])
        style.draw_bound(axes, lines["best_constant"].max(), ":")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.6, len(variants) - 0.4)
    style.finish_panel(axes)
    axes.set_xticks(range(len(variants)), variants, rotation=40, ha="right", fontsize=style.TICK)
