"""The effect of every intervention on the same episodes."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import variant_panels
from analysis.frames import NOT_APPLICABLE, NOT_RUN, interventions_in_order
from analysis.intervention_frames import quantities_of
from analysis.paired import MARGIN, QUANTITY_TITLES
from analysis.shams import with_shams

SPREAD = 0.8  # share of an intervention's row over which its seeds spread


class PairedFigure(Figure):
    """Paired differences with 90 % intervals: a panel per variant, a row per intervention with its shams below.

    Interventions whose difference is exactly 0 in every variant and seed are named and not drawn.
    """

    frame = "paired"

    def applies(self, subject: Subject) -> bool:
        return True

    def stem(self, subject: Subject) -> str:
        return "paired" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return f"Effect of memory interventions on {QUANTITY_TITLES[quantities_of(subject.lines)[0]]}"

    def draw(self, subject: Subject) -> Drawing:
        quantity, variants = quantities_of(subject.lines)[0], subject.variants
        names, unchanged = _with_effect(subject.lines, quantity)
        seeds = sorted(subject.lines["seed"].unique())
        height = max(1.4, (0.1 + 0.035 * len(seeds)) * len(names))
        figure, panels = variant_panels(variants, (1.2, height), (1.4, 1.3))
        for axes, variant in zip(panels[0], variants, strict=True):
            lines = subject.lines[subject.lines["variant"] == variant]
            undefined = {name for of, name in subject.undefined if of == variant}
            _panel(axes, lines, _states(names, lines, undefined), seeds, quantity, subject.colours[variant])
        ticks = [f"sham: {name}" if is_sham else name for name, is_sham in names]
        panels[0, 0].set_yticks(range(len(names)), ticks, fontsize=style.TICK)
        panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
        style.set_title(
            figure,
            self.caption(subject),
            subject.study,
            "paired difference, with the intervention minus without; a mark per training seed; bars: 90 % intervals",
            f"exactly 0 everywhere, not drawn: {', '.join(unchanged)}" if unchanged else "",
        )
        handles = style.seed_handles(seeds)
        if any(is_sham for _, is_sham in names):
            handles.append(style.handle("sham", marker="o", color="0.3", markerfacecolor="white"))
        handles.append(Patch(color=style.BAND, label=f"null: inside ±{MARGIN:.2f}"))
        missing = subject.lines[f"{quantity}_difference"].isna() & ~subject.lines["never_fired"]
        if missing.any():
            handles.append(style.handle("no pair of episodes to compare", marker="x", color="0.2"))
        style.legend(figure, handles)
        return figure


def _with_effect(lines: pd.DataFrame, quantity: str) -> tuple[list[tuple[str, bool]], list[str]]:
    """(intervention, whether it is a sham) of the rows to draw, and the interventions that change nothing at all."""
    names = with_shams(interventions_in_order(lines))
    values = lines.groupby("intervention")[f"{quantity}_difference"]
    exact = values.apply(lambda column: bool((column == 0).all()))
    drawn = [(name, is_sham) for name, is_sham in names if not exact[name]]
    return (drawn, [name for name, _ in names if exact[name]]) if drawn else (names, [])


def _states(names: list[tuple[str, bool]], lines: pd.DataFrame, undefined: set[str]) -> list[tuple[str, bool, str]]:
    """(intervention, whether it is a sham, why the variant has no lines of the intervention; "" where it has)."""
    run = set(lines["intervention"])
    return [
        (name, is_sham, "" if name in run else NOT_APPLICABLE if name in undefined else NOT_RUN)
        for name, is_sham in names
    ]


def _panel(
    axes: Axes, lines: pd.DataFrame, names: list[tuple[str, bool, str]], seeds: list[int], quantity: str, colour: str
) -> None:
    """Draws one variant.

    Args:
        axes: the panel.
        lines: the variant's paired differences.
        names: (intervention, whether it is a sham, why there is nothing to draw) of the rows.
        seeds: training seeds of all variants.
        quantity: key of `analysis.paired.QUANTITY_TITLES`.
        colour: the variant's colour.
    """
    axes.axvspan(-MARGIN, MARGIN, color=style.BAND, zorder=0)
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    for y, (name, is_sham, state) in enumerate(names):
        of_name = lines[lines["intervention"] == name]
        if state:
            axes.text(0, y, state, ha="center", va="center", fontsize=style.TICK, color=style.GREY)
        for _, line in of_name.iterrows():
            at = y + style.offset_of(line["seed"], seeds, SPREAD)
            face = "white" if is_sham else colour
            _mark(
                axes,
                line,
                at,
                quantity,
                {"marker": style.mark_of(line["seed"], seeds), "markerfacecolor": face},
                colour,
            )
    axes.set_xlim(-1.08, 1.08)
    style.finish_panel(axes, "x")
    axes.set_xticks((-1, -0.5, 0, 0.5, 1), ("−1", "", "0", "", "1"), fontsize=style.TICK)


def _mark(axes: Axes, line: pd.Series, y: float, quantity: str, mark: dict, colour: str) -> None:
    if line["never_fired"]:
        style.write_never_fired(axes, 0, y)
    elif pd.isna(line[f"{quantity}_difference"]):
        axes.plot(0, y, marker="x", color=colour, markersize=style.MARK)
    else:
        axes.hlines(y, line[f"{quantity}_low"], line[f"{quantity}_high"], color=colour, linewidth=1)
        axes.plot(line[f"{quantity}_difference"], y, color=colour, markersize=2.5, **mark)
