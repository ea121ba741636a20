"""Draw the two diagrams of the README: `python docs/images/draw.py`.

`sequence.png` shows the tokens of one tick and which query rows the guard bars from ACTION and STOP.
`tick.png` shows the order of one tick and the three sites of an intervention.
The rows of the guard come from `may_attend`, not from this file.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from muvla.models.guard import may_attend
from muvla.models.sequence import Segment

FOLDER = Path(__file__).parent
COLOURS = {
    "BOS": "#bbbbbb",
    "VISION": "#88ccee",
    "PROPRIO": "#44aa99",
    "MEMORY": "#cc6677",
    "TEXT": "#ddcc77",
    "ACTION": "#aa4499",
    "STOP": "#999999",
}  # Paul Tol's muted palette
WIDTHS = {"BOS": 0.7, "VISION": 3.0, "PROPRIO": 1.3, "MEMORY": 1.8, "TEXT": 1.8, "ACTION": 2.0, "STOP": 0.9}
COUNTS = {"BOS": "1", "VISION": "V·P", "PROPRIO": "1", "MEMORY": "m", "TEXT": "T", "ACTION": "H·A", "STOP": "1"}
BLUE, RED, GREY = "#4477aa", "#cc6677", "#555555"


def draw_sequence() -> plt.Figure:
    """The token sequence of one tick above the attention rule of the guard `context`."""
    figure, (row, mask) = plt.subplots(2, 1, figsize=(8.4, 5.2), height_ratios=[1, 3.4], layout="constrained")
    x = 0.0
    for name, width in WIDTHS.items():
        row.add_patch(FancyBboxPatch((x, 0), width - 0.1, 1, boxstyle="round,pad=0.02", fc=COLOURS[name], ec="none"))
        row.text(x + width / 2 - 0.05, 0.58, name, ha="center", va="center", fontsize=8.5, weight="bold")
        row.text(x + width / 2 - 0.05, 0.22, COUNTS[name], ha="center", va="center", fontsize=8)
        x += width
    row.set(xlim=(-0.1, x), ylim=(-0.15, 1.15), title="One tick: the token sequence (attention is bidirectional)")
    row.axis("off")
    names = list(WIDTHS)
    segments = torch.tensor([int(Segment[name]) for name in names])
    allowed = may_attend(segments[:, None], segments[None, :], "context")
    for i, query in enumerate(names):
        for j, _ in enumerate(names):
            colour = COLOURS[query] if bool(allowed[i, j]) else "white"
            mask.add_patch(Rectangle((j, len(names) - 1 - i), 0.94, 0.9, fc=colour, ec="#dddddd"))
            if not allowed[i, j]:
                mask.text(j + 0.47, len(names) - 1 - i + 0.45, "✕", ha="center", va="center", color=RED, fontsize=10)
    mask.set_xticks([j + 0.47 for j in range(len(names))], names, fontsize=8.5)
    mask.set_yticks([len(names) - 1 - i + 0.45 for i in range(len(names))], names, fontsize=8.5)
    mask.set(xlim=(-0.1, len(names)), ylim=(-0.15, len(names)), xlabel="key", ylabel="query")
    mask.set_title("Guard `context`: only ACTION and STOP rows read ACTION and STOP", fontsize=10)
    mask.tick_params(length=0)
    for spine in mask.spines.values():
        spine.set_visible(False)
    return figure


STEPS = ("reset", "read", "model", "retrieve", "inject", "head", "write", "truncate")
NOTES = {
    "reset": "slots that start\nan episode",
    "read": "state → MEMORY\ntokens",
    "model": "vision, text,\nmemory",
    "retrieve": "search after\nthe model",
    "inject": "what the head\nreads",
    "head": "actions\n(H × A)",
    "write": "MEMORY rows\n→ state",
    "truncate": "cut gradient\nevery K ticks",
}
SITES = {"before read": 0.5, "read": 1.5, "after write": 6.5}  # between which two steps


def draw_tick() -> plt.Figure:
    """The order of one tick, with the sites at which an intervention may act."""
    figure, axes = plt.subplots(figsize=(9.6, 2.7), layout="constrained")
    for i, step in enumerate(STEPS):
        colour = RED if step in ("reset", "read", "write", "truncate") else BLUE
        axes.add_patch(FancyBboxPatch((i, 0), 0.74, 0.62, boxstyle="round,pad=0.03", fc=colour, ec="none", alpha=0.9))
        axes.text(i + 0.37, 0.31, step, ha="center", va="center", color="white", weight="bold", fontsize=9.5)
        axes.text(i + 0.37, -0.14, NOTES[step], ha="center", va="top", fontsize=7.5, color=GREY)
        if i:
            axes.add_patch(
                FancyArrowPatch((i - 0.22, 0.31), (i - 0.04, 0.31), arrowstyle="-|>", mutation_scale=9, color=GREY)
            )
    for site, place in SITES.items():
        x = place + 0.37
        axes.annotate(
            f"intervene\n{site}",
            (x, 0.36),
            (x, 1.12),
            ha="center",
            va="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-|>", "color": "black"},
        )
    axes.add_patch(
        FancyArrowPatch(
            (7.37, -0.62),
            (0.37, -0.62),
            arrowstyle="-|>",
            mutation_scale=12,
            color=RED,
            connectionstyle="arc3,rad=-0.02",
        )
    )
    axes.text(
        3.87, -0.82, "the state is carried to the next tick of the same slot", ha="center", color=RED, fontsize=8.5
    )
    axes.set(xlim=(-0.1, len(STEPS)), ylim=(-1.0, 1.4))
    axes.axis("off")
    return figure


def main() -> None:
    for name, figure in (("sequence", draw_sequence()), ("tick", draw_tick())):
        figure.savefig(FOLDER / f"{name}.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
