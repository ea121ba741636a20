"""The change of the predicted action chunk under interventions, as a heat table."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Drawing

from analysis.figures import style
from analysis.figures.base import Figure, Subject
from analysis.figures.panels import variant_panels
from analysis.frames import interventions_in_order
from analysis.shams import with_shams

ROW = 0.19  # inches


class ChunksFigure(Figure):
    """A panel per variant, a row per intervention with its shams below, and in a row a strip per training seed."""

    frame = "chunks"

    def applies(self, subject: Subject) -> bool:
        return True

    def stem(self, subject: Subject) -> str:
        return "chunks" + subject.suffix

    def caption(self, subject: Subject) -> str:
        return "Change of the predicted action chunk under memory interventions"

    def draw(self, subject: Subject) -> Drawing:
        lines, variants = subject.lines, subject.variants
        names = with_shams(interventions_in_order(lines))
        seeds, steps = sorted(lines["seed"].unique()), sorted(lines["since_cue"].unique())
        figure, panels = variant_panels(variants, (0.9, 0.3 + ROW * len(names)), (1.3, 1.0))
        rows = {name: i for i, (name, _) in enumerate(names)}
        for variant, axes in zip(variants, panels[0], strict=True):
            values = np.full((len(names) * len(seeds), len(steps)), np.nan)
            for _, line in lines[lines["variant"] == variant].iterrows():
                row = rows[line["intervention"]] * len(seeds) + seeds.index(line["seed"])
                values[row, steps.index(line["since_cue"])] = line["value"]
            image = axes.imshow(
                values,
                vmin=0,
                vmax=max(lines["value"].max(), 1e-9),
                cmap="magma_r",
                aspect="auto",
                interpolation="none",
            )
            for i in range(1, len(names)):
                axes.axhline(i * len(seeds) - 0.5, color="w", linewidth=1)
            axes.title.set_color(subject.colours[variant])
            every = -(-len(steps) // 6)
            axes.set_xticks(range(0, len(steps), every), [f"{step:g}" for step in steps[::every]], fontsize=style.TICK)
            axes.tick_params(length=1.5, labelsize=style.TICK)
        labels = [f"   sham: {name}" if is_sham else name for name, is_sham in names]
        centres = [(i + 0.5) * len(seeds) - 0.5 for i in range(len(names))]
        panels[0, 0].set_yticks(centres, labels, fontsize=style.TICK)
        figure.supxlabel("steps since the cue's end", fontsize=style.LABEL)
        bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01)
        bar.ax.tick_params(labelsize=style.TICK)
        bar.set_label("mean absolute difference", fontsize=style.LABEL)
        style.set_title(
            figure,
            self.caption(subject),
            subject.study,
            "mean absolute difference of normalised actions, with against without; strips of a row, top to bottom: "
            f"training seeds {', '.join(map(str, seeds))}",
        )
        return figure
