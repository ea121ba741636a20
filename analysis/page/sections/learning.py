"""The time to learn: success over the updates of every training, and the updates until most of the expert's success."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.page.content import Content
from analysis.page.numbers import plain
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.sections.variants import contrast_entry
from analysis.page.small_charts import Axes, Curve, backdrop, panel
from analysis.time_to_learn import SHARE, TITLE, WORDS, time_sentences, time_text, times_frame
from sweeps.time_to_learn import METRIC


class LearningSection(Section):
    """A small chart per variant, a row per variant with its times, and the log-rank contrasts."""

    title = "Time to learn"
    navigation = "learning"

    def applies(self, content: Content) -> bool:
        return len(content.updates) > 0

    def html(self, content: Content) -> str:
        times = times_frame(content.updates)
        goal = float(content.updates["goal"].max())
        return render(
            content,
            "learning.html",
            share=SHARE,
            goal=goal,
            title=TITLE,
            words=WORDS,
            sentences=time_sentences(content.updates),
            **_charts(content, goal),
            rows=[_row(label, lines) for label in content.labels if len(lines := times[times["label"] == label])],
            contrasts=[contrast_entry(line) for _, line in _contrasts(content).iterrows()],
        )


def _contrasts(content: Content) -> pd.DataFrame:
    lines = content.contrasts
    return lines[lines["metric"] == METRIC] if len(lines) else lines


def _charts(content: Content, goal: float) -> dict[str, Any]:
    lines = content.updates.sort_values("update")
    axes = Axes.around(lines["update"], [lines["success_rate"]], share=True)
    cells = [of_cell for _, of_cell in lines.groupby(["label", "seed"], sort=False)]
    name, panels = "curves-of-success", []
    by_label = dict(iter(lines.groupby("label", sort=False)))
    for label in (label for label in content.labels if label in by_label):
        ours = by_label[label]
        curves = [_curve(of_cell, "curve", f"seed {seed}") for seed, of_cell in ours.groupby("seed")]
        ends = (f"seed {seed} {plain(of_seed['success_rate'].iloc[-1])}" for seed, of_seed in ours.groupby("seed"))
        text = f"success of {label} over updates; last value: {', '.join(ends)}"
        chart = panel(axes, curves, content.colour(label), text, levels=(goal,), behind=name)
        panels.append({"label": label, "chart": chart})
    return {"panels": panels, "shared": backdrop(axes, [_curve(cell, "back") for cell in cells], name)}


def _curve(lines: pd.DataFrame, look: str, name: str = "") -> Curve:
    points = tuple(zip(lines["update"].astype(float), lines["success_rate"], strict=True))
    words = ", ".join(f"{plain(rate)} at update {update:.0f}" for update, rate in points)
    return Curve(points, look, text=f"{name}: {words}" if name else "")


def _row(label: str, lines: pd.DataFrame) -> dict[str, Any]:
    ordered = lines.sort_values("seed")
    times = [(line["seed"], time_text(line)) for _, line in ordered.iterrows()]
    return {"label": label, "reached": int(ordered["reached"].sum()), "seeds": len(ordered), "times": times}
