"""Small charts side by side: a panel per variant, a line per training seed in the variant's colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from analysis.page.svg import band_path, line_path, tag, tick_text, ticks

WIDTH, HEIGHT = 240, 132
LEFT, RIGHT, TOP, BOTTOM = 40, 6, 6, 20


@dataclass(frozen=True)
class Axes:
    """The ranges that all panels of one quantity share."""

    xs: tuple[float, float]
    ys: tuple[float, float]

    @classmethod
    def around(cls, x: pd.Series, y: Sequence[pd.Series], share: bool = False) -> Axes:
        """Ranges that hold all values; from 0 to 1 for a share."""
        values = pd.concat([pd.to_numeric(each, errors="coerce") for each in y]).dropna()
        low, high = (0.0, 1.0) if share or values.empty else (float(values.min()), float(values.max()))
        if low == high:
            low, high = low - 0.5, high + 0.5
        room = 0.0 if share else 0.06 * (high - low)
        left, right = float(x.min()), float(x.max())
        return cls((left, right if right > left else left + 1), (low - room, high + room))

    def x(self, value: float) -> float:
        low, high = self.xs
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.ys
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        points: (x, y) in order.
        look: CSS class.
        low: lower limit by point; empty without a band.
        high: upper limit by point.
        text: what the line is, for its tooltip.
    """

    points: tuple[tuple[float, float], ...]
    look: str = "curve"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    text: str = ""


def backdrop(axes: Axes, curves: Sequence[Curve], name: str) -> Markup:
    """Lines that all panels of these axes draw behind their lines. A page holds the lines once.

    Args:
        axes: the ranges of the panels.
        curves: the lines, the last one on top.
        name: id of the lines in the page, for `panel`.
    """
    group = tag("g", *(_line(axes, curve) for curve in curves), id=name)
    return tag("svg", tag("defs", group), class_="shared", aria_hidden="true")


def panel(
    axes: Axes,
    curves: Sequence[Curve],
    colour: str,
    label: str,
    x_names: dict[float, str] | None = None,
    levels: Sequence[float] = (),
    behind: str = "",
) -> Markup:
    """One chart.

    Args:
        axes: the ranges.
        curves: lines, the last one on top.
        colour: CSS value of the variant's colour.
        label: text for readers who do not see the chart.
        x_names: position → name, for an axis of words.
        levels: values of y at which a dashed line stands.
        behind: id of the lines of `backdrop` that stand behind the curves; empty for none.
    """
    drawn = [_level(axes, value, "axis-line") for value in ticks(*axes.ys, 4)]
    drawn += [
        tag("text", tick_text(value), x=LEFT - 5, y=axes.y(value) + 4, text_anchor="end")
        for value in ticks(*axes.ys, 4)
    ]
    names = x_names or {value: tick_text(value) for value in ticks(*axes.xs, 4)}
    drawn += [
        tag("text", name, x=axes.x(value), y=HEIGHT - 4, text_anchor=_anchor(value, axes))
        for value, name in names.items()
    ]
    drawn += [_level(axes, y, "reference chance") for y in levels if axes.ys[0] <= y <= axes.ys[1]]
    if behind:
        drawn.append(tag("use", href=f"#{behind}"))
    for curve in curves:
        if curve.low:
            xs = [axes.x(x) for x, _ in curve.points]
            area = band_path(xs, [axes.y(v) for v in curve.low], [axes.y(v) for v in curve.high])
            drawn.append(tag("path", d=area, class_="band"))
        drawn.append(_line(axes, curve))
    return tag(
        "svg",
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
        style=f"--c:{colour}",
    )


def _level(axes: Axes, y: float, look: str) -> Markup:
    return tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=axes.y(y), y2=axes.y(y), class_=look)


def _line(axes: Axes, curve: Curve) -> Markup:
    line = line_path((axes.x(x), axes.y(y)) for x, y in curve.points)
    return tag("path", d=line, class_=curve.look, data_tip=curve.text or None)


def _anchor(value: float, axes: Axes) -> str:
    place = (value - axes.xs[0]) / (axes.xs[1] - axes.xs[0])
    return "start" if place < 0.06 else "end" if place > 0.94 else "middle"
