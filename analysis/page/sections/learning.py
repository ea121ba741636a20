"""The time to learn: success over the updates of every training, and the updates until most of the expert's success."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.page.content import Content
from analysis.page.numbers import plain
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.sections.variants import contrast_entry
from analysis.page.small_charts import Axes, Curve, panel
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
            panels=list(_panels(content, goal)),
            rows=[_row(label, lines) for label in content.labels if len(lines := times[times["label"] == label])],
            contrasts=[contrast_entry(line) for _, line in _contrasts(content).iterrows()],
        )


def _contrasts(content: Content) -> pd.DataFrame:
    lines = content.contrasts
    return lines[lines["metric"] == METRIC] if len(lines) else lines


def _panels(content: Content, goal: float) -> Iterator[dict[str, Any]]:
    lines = content.updates.sort_values("update")
    axes = Axes.around(lines["update"], [lines["success_rate"]], share=True)
    for label in content.labels:
        ours = lines[lines["label"] == label]
        if ours.empty:
            continue
        others = lines[lines["label"] != label].groupby(["label", "seed"], sort=False)
        back = [_curve(of_cell, "back") for _, of_cell in others]
        curves = [_curve(of_cell, "curve", f"seed {seed}") for seed, of_cell in ours.groupby("seed")]
        ends = (f"seed {seed} {plain(of_seed['success_rate'].iloc[-1])}" for seed, of_seed in ours.groupby("seed"))
        text = f"success of {label} over updates; last value: {', '.join(ends)}"
        chart = panel(axes, [*back, *curves], content.colour(label), text, levels=(goal,))
        yield {"label": label, "chart": chart}


def _curve(lines: pd.DataFrame, look: str, name: str = "") -> Curve:
    points = tuple(zip(lines["update"].astype(float), lines["success_rate"], strict=True))
    words = ", ".join(f"{plain(rate)} at update {update:.0f}" for update, rate in points)
    return Curve(points, look, text=f"{name}: {words}" if name else "")


def _row(label: str, lines: pd.DataFrame) -> dict[str, Any]:
    ordered = lines.sort_values("seed")
    times = [(line["seed"], time_text(line)) for _, line in ordered.iterrows()]
    return {"label": label, "reached": int(ordered["reached"].sum()), "seeds": len(ordered), "times": times}
