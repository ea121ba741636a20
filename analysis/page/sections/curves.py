"""The learning curves of the training logs: a panel per variant before all other variants in grey."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.page.content import Content
from analysis.page.numbers import plain
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.small_charts import Axes, Curve, panel

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
            {"quantity": name, "title": title, "panels": list(_panels(content, name))}
            for name, title in DRAWN.items()
            if (content.curves["quantity"] == name).any()
        ]
        return render(content, "curves.html", groups=groups)


def _panels(content: Content, quantity: str) -> Iterator[dict[str, Any]]:
    lines = content.curves[content.curves["quantity"] == quantity]
    highest = lines["value"].quantile(0.99)  # a first update far above all others would flatten every curve
    axes = Axes.around(lines["update"], [lines["value"].clip(upper=highest)])
    by_cell = {key: of_cell for key, of_cell in lines.groupby(["label", "seed"], sort=False)}
    for label in content.labels:
        ours = {seed: of_cell for (name, seed), of_cell in by_cell.items() if name == label}
        if not ours:
            continue
        others = [_curve(of_cell, highest, "back") for (name, _), of_cell in by_cell.items() if name != label]
        curves = [_curve(of_cell, highest, "curve", f"seed {seed}") for seed, of_cell in ours.items()]
        last = ", ".join(f"seed {seed} {plain(of_cell['value'].iloc[-1], 3)}" for seed, of_cell in ours.items())
        text = f"{DRAWN[quantity]} of {label} over updates; last value: {last}"
        yield {"label": label, "chart": panel(axes, [*others, *curves], content.colour(label), text)}


def _curve(lines: pd.DataFrame, highest: float, look: str, name: str = "") -> Curve:
    points = tuple(zip(lines["update"].astype(float), lines["value"].clip(upper=highest), strict=True))
    text = f"{name}: {plain(lines['value'].iloc[-1], 4)} at update {int(lines['update'].iloc[-1])}" if name else ""
    return Curve(points, look, text=text)
