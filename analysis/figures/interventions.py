"""The metric under every intervention, beside the plain run, as a heat table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.rates import length_panels
from analysis.frames import METRIC_TITLES, interventions_in_order, metric_of
from analysis.shams import with_shams

ROW = 0.17  # inches
ROOM = 0.3  # inches: the narrowest block that holds a number


class InterventionRatesFigure(Figure):
    """A row per intervention, the plain run first and shams indented; a block per variant, a strip per training seed.

    The number is the mean over training seeds. Training lengths stand in panels below each other.
    """

    frame = "rates"

    def applies(self, subject: Subject) -> bool:
        return bool((subject.lines["intervention"] != "none").any())

    def stem(self, subject: Subject) -> str:
        return "interventions" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return f"{METRIC_TITLES[metric_of(subject.lines)].capitalize()} under memory interventions"

    def draw(self, subject: Subject) -> Drawing:
        changed = set(subject.lines[subject.lines["intervention"] != "none"]["variant"])
        shown = subject.lines[subject.lines["variant"].isin(changed)]
        variants = [variant for variant in subject.variants if variant in changed]
        seeds = sorted(shown["seed"].unique())
        names = [("none", False), *with_shams(n for n in interventions_in_order(shown) if n != "none")]
        panels = length_panels(shown)
        height = 1.3 + (ROW * len(names) + 0.3) * len(panels)
        figure, grid = style.new_figure(1.5 + 0.5 * len(variants), height, len(panels), 1, sharex=True)
        metric = metric_of(subject.lines)
        for (title, lengths), (axes,) in zip(panels, grid, strict=True):
            image = _panel(axes, shown[shown["U"].isin(lengths)], names, variants, seeds, metric)
            axes.set_title(f"{title} updates", fontsize=style.TICK)
        bar = figure.colorbar(image, ax=grid, fraction=0.03, pad=0.01)
        bar.ax.tick_params(labelsize=style.TICK)
        bar.set_label(METRIC_TITLES[metric], fontsize=style.LABEL)
        strips = f"strips of a block, left to right: training seeds {style.seeds_text(seeds)}; number: their mean"
        chance = shown["chance"].iloc[0]
        bound = "" if pd.isna(chance) else f"chance without memory: {chance:.2f}; "
        style.set_title(figure, self.caption(subject), subject.study, strips, f"{bound}white: no episode counts")
        return figure


def _panel(
    axes: Axes,
    lines: pd.DataFrame,
    names: list[tuple[str, bool]],
    variants: list[str],
    seeds: list[int],
    metric: str,
):
    """Draws one training length; returns the image.

    Args:
        axes: the panel.
        lines: its tidy lines.
        names: (intervention, whether it is a sham) of the rows.
        variants: the blocks.
        seeds: the strips of a block.
        metric: key of `analysis.frames.METRICS`.
    """
    rates = np.full((len(names), len(variants) * len(seeds)), np.nan)
    rows = {name: i for i, (name, _) in enumerate(names)}
    for _, line in lines.iterrows():
        place = variants.index(line["variant"]) * len(seeds) + seeds.index(line["seed"])
        rates[rows[line["intervention"]], place] = line[f"{metric}_rate"]
    image = axes.imshow(rates, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="none")
    wide = 0.75 * axes.figure.get_figwidth() / len(variants) >= ROOM
    for (name, variant), here in lines.groupby(["intervention", "variant"], sort=False):
        x = (variants.index(variant) + 0.5) * len(seeds) - 0.5
        if here["never_fired"].all():
            axes.text(x, rows[name], "never fired", ha="center", va="center", fontsize=style.TINY, color=style.GREY)
        elif wide and here[f"{metric}_rate"].notna().any():
            box = {"facecolor": "w", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
            text = f"{here[f'{metric}_rate'].mean():.2f}"
            axes.text(x, rows[name], text, ha="center", va="center", fontsize=style.TICK, bbox=box)
    for i in range(1, len(variants)):
        axes.axvline(i * len(seeds) - 0.5, color="w", linewidth=2.5)
    for i in range(1, len(names)):
        axes.axhline(i - 0.5, color="w", linewidth=0.6)
    centres = [(i + 0.5) * len(seeds) - 0.5 for i in range(len(variants))]
    slanted = max(map(len, variants)) * 0.06 > 0.75 * axes.figure.get_figwidth() / len(variants)
    turned = {"rotation": 35, "ha": "right"} if slanted else {}
    axes.set_xticks(centres, variants, fontsize=style.TICK, **turned)
    labels = [f"   sham: {name}" if is_sham else name for name, is_sham in names]
    axes.set_yticks(range(len(names)), labels, fontsize=style.TICK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
