"""One mark per training seed by variant, with its interval, chance, baselines and published numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from analysis.frames import METRIC_TITLES, METRICS, metrics_of
from analysis.page.content import CellState, Content
from analysis.page.numbers import plain
from analysis.page.svg import percent, tag

ROW = 34  # pixels
NEAR = 0.16  # labels of reference lines that are nearer than this share of the axis stand below each other
AXIS = (0.0, 0.25, 0.5, 0.75, 1.0)
CHANCE, CONSTANT, RANDOM, EXPERT, PUBLISHED = "chance", "most frequent target", "random policy", "expert", "published"


@dataclass(frozen=True)
class Line:
    """A vertical reference line.

    Attributes:
        name: what it marks.
        value: its place from 0 to 1.
        look: CSS class; `PUBLISHED` for a published number.
    """

    name: str
    value: float
    look: str


@dataclass(frozen=True)
class Row:
    """A variant's row: its label, its marks and the states of its cells."""

    label: str
    marks: Markup
    text: str
    rates: pd.Series
    states: tuple[CellState, ...]


@dataclass(frozen=True)
class Panel:
    """The marks of one protocol and metric."""

    protocol: str
    metric: str
    title: str
    axis: Markup
    rows: tuple[Row, ...]
    episodes: str
    published: int  # published numbers among the lines


def dot_panels(content: Content) -> list[Panel]:
    """A panel per protocol and metric. First-touch accuracy comes first, where something is chosen. Without results,
    one panel of states alone."""
    panels = []
    for protocol, lines in content.plain.groupby("protocol", sort=False) if len(content.plain) else ():
        for metric in sorted(metrics_of(lines), key=("choice", "success", "touch").index):
            panels.append(_panel(content, protocol, metric, lines))
    metric = content.primary if content.primary in METRICS else "success"
    return panels or [_panel(content, "", metric, content.plain)]


def _panel(content: Content, protocol: str, metric: str, lines: pd.DataFrame) -> Panel:
    references = reference_lines(content, protocol, metric, lines)
    rows = []
    for label in content.labels:
        of_label = lines[lines["label"] == label] if len(lines) else lines
        states = tuple(state for state in content.states if state.label == label)
        marks, text = _marks(of_label, metric, references, content.seeds)
        rates = of_label[f"{metric}_rate"] if len(of_label) else pd.Series(dtype=float)
        rows.append(Row(label, marks, text, rates, states))
    episodes = "/".join(map(str, sorted(lines["measured"].unique()))) if len(lines) else ""
    title = METRIC_TITLES[metric]
    title = title[:1].upper() + title[1:]
    published = sum(line.look == PUBLISHED for line in references)
    return Panel(protocol, metric, title, _axis(references), tuple(rows), episodes, published)


def reference_lines(content: Content, protocol: str, metric: str, lines: pd.DataFrame) -> list[Line]:
    """The bounds, baselines and published numbers that belong to a metric of a protocol.

    Args:
        content: the page's content.
        protocol: id of the protocol.
        metric: key of `analysis.frames.METRICS`.
        lines: the protocol's plain lines.
    """
    references = []
    if metric == "choice" and len(lines):
        references = [
            Line(CHANCE, lines["chance"].iloc[0], "chance"),
            Line(CONSTANT, lines["best_constant"].max(), "constant"),
        ]
    for policy, name in (("random", RANDOM), ("expert", EXPERT)) if len(content.baselines) else ():
        of_policy = content.baselines[
            (content.baselines["policy"] == policy) & (content.baselines["protocol"] == protocol)
        ]
        references += [Line(name, line[f"{metric}_rate"], policy) for _, line in of_policy.iterrows()]
    if metric == "success" and len(content.published):
        of_task = content.published[content.published["protocol"] == protocol]
        references += [Line(line["label"], line["value"], PUBLISHED) for _, line in of_task.iterrows()]
    return [line for line in references if pd.notna(line.value)]


def _axis(references: list[Line]) -> Markup:
    """The names of the reference lines above the rows; near names stand below each other."""
    ends: list[float] = []  # right-most place by tier
    names = []
    named = [line for line in references if line.look != PUBLISHED]  # published numbers are many: a note names them
    for line in sorted(named, key=lambda each: each.value):
        tier = next((i for i, end in enumerate(ends) if line.value - end > NEAR), len(ends))
        ends[tier:] = [line.value, *ends[tier + 1 :]]
        anchor = "start" if line.value < 0.12 else "end" if line.value > 0.85 else "middle"
        text = f"{line.name} {plain(line.value)}"
        names.append((tier, tag("text", text, x=percent(line.value), class_=f"name {line.look}", text_anchor=anchor)))
    height = 16 * max(1, len(ends))
    placed = [Markup(str(text).replace("<text ", f'<text y="{12 + 16 * tier}" ', 1)) for tier, text in names]
    return tag("svg", *placed, class_="axis", width="100%", height=height, aria_hidden="true")


def _marks(lines: pd.DataFrame, metric: str, references: list[Line], seeds: tuple[int, ...]) -> tuple[Markup, str]:
    """The marks of one variant, and the same in words."""
    top, bottom = METRICS[metric]
    drawn = [tag("line", x1=percent(x), x2=percent(x), y1=0, y2=ROW, class_="grid") for x in AXIS]
    drawn += [
        tag(
            "line",
            x1=percent(line.value),
            x2=percent(line.value),
            y1=0,
            y2=ROW,
            class_=f"reference {line.look}",
            data_tip=f"{line.name}: {plain(line.value)}" if line.look == PUBLISHED else None,
        )
        for line in references
    ]
    words = []
    for _, line in lines.sort_values("seed").iterrows() if len(lines) else ():
        rate = line[f"{metric}_rate"]
        if pd.isna(rate):
            continue
        place = seeds.index(line["seed"]) if line["seed"] in seeds else 0
        y = ROW / 2 + (place - (len(seeds) - 1) / 2) * min(5.0, (ROW - 10) / max(1, len(seeds)))
        low, high = line[f"{metric}_low"], line[f"{metric}_high"]
        counts = f"{int(line[top])} of {int(line[bottom])}"
        words.append(f"seed {line['seed']}: {plain(rate)}")
        tip = f"seed {line['seed']}: {plain(rate)} [{plain(low)}, {plain(high)}], {counts} episodes"
        drawn.append(tag("line", x1=percent(low), x2=percent(high), y1=y, y2=y, class_="bar"))
        drawn.append(
            tag(
                "circle",
                cx=percent(rate),
                cy=y,
                r=4.5,
                class_="dot",
                data_tip=tip,
                data_seed=line["seed"],
                data_value=f"{rate:.6g}",
            )
        )
    text = "; ".join(words) or "no result yet"
    return tag("svg", *drawn, class_="strip", width="100%", height=ROW, role="img", aria_label=text), text
