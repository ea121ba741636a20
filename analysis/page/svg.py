"""Inline SVG and HTML elements, escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element with escaped attributes and children.

    Attributes are written with hyphens for underscores, and without a trailing underscore (`class_`). An attribute that
    is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _plain(value: object) -> object:
    """A number with at most three decimals, so that a page stays small."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def percent(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The place of a value on an axis from `low` to `high`, in percent of its length."""
    share = (value - low) / (high - low) if high > low else 0.5
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers inside [low, high], at most `most` of them and at least one."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    values = [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return values or [low]


def tick_text(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def line_path(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a path through these points; a point that is not finite interrupts the line."""
    text, pen = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            text.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(text)


def band_path(xs: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> str:
    """The `d` of a closed area between two lines; empty where a limit is not finite."""
    places = [(x, low, high) for x, low, high in zip(xs, lows, highs, strict=True) if math.isfinite(low + high)]
    if len(places) < 2:
        return ""
    upper = [(x, high) for x, _, high in places]
    lower = [(x, low) for x, low, _ in reversed(places)]
    return line_path([*upper, *lower]) + "Z"
