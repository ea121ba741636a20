"""The learning curves of the training logs: a panel per variant, with the curves of all variants in grey behind."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.page.content import Content
from analysis.page.numbers import plain
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.small_charts import Axes, Curve, backdrop, panel

# Quantities of the log that are drawn, in order, with their titles. `loss` comes first.
DRAWN = {
    "loss": "loss",
    "loss_at_first_decision": "error at the first decision step, training",
    "loss_at_first_decision_held_out": "error at the first decision step, held-out demonstrations",
    "gradient_norm": "gradient norm",
    "memory_rms": "root mean square of the memory",
}


class CurvesSection(Section):
    """A small chart per variant and quantity."""

    title = "Learning curves"
    navigation = "curves"

    def applies(self, content: Content) -> bool:
        return len(content.curves) > 0 and bool(set(content.curves["quantity"]) & DRAWN.keys())

    def html(self, content: Content) -> str:
        groups = [
            {"quantity": name, "title": title} | _charts(content, name)
            for name, title in DRAWN.items()
            if (content.curves["quantity"] == name).any()
        ]
        return render(content, "curves.html", groups=groups)


def _charts(content: Content, quantity: str) -> dict[str, Any]:
    lines = content.curves[content.curves["quantity"] == quantity]
    highest = lines["value"].quantile(0.99)  # a first update far above all others would flatten every curve
    axes = Axes.around(lines["update"], [lines["value"].clip(upper=highest)])
    cells = [of_cell for _, of_cell in lines.groupby(["label", "seed"], sort=False)]
    name, panels = f"curves-{quantity}", []
    by_label = dict(iter(lines.groupby("label", sort=False)))
    for label in (label for label in content.labels if label in by_label):
        ours = dict(iter(by_label[label].groupby("seed", sort=False)))
        curves = [_curve(of_cell, highest, "curve", f"seed {seed}") for seed, of_cell in ours.items()]
        last = ", ".join(f"seed {seed} {plain(of_cell['value'].iloc[-1], 3)}" for seed, of_cell in ours.items())
        text = f"{DRAWN[quantity]} of {label} over updates; last value: {last}"
        panels.append({"label": label, "chart": panel(axes, curves, content.colour(label), text, behind=name)})
    return {"panels": panels, "shared": backdrop(axes, [_curve(cell, highest, "back") for cell in cells], name)}


def _curve(lines: pd.DataFrame, highest: float, look: str, name: str = "") -> Curve:
    points = tuple(zip(lines["update"].astype(float), lines["value"].clip(upper=highest), strict=True))
    text = f"{name}: {plain(lines['value'].iloc[-1], 4)} at update {int(lines['update'].iloc[-1])}" if name else ""
    return Curve(points, look, text=text)
