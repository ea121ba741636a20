"""The figures by name. A figure is one file and one line here, or an entry point of another package."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from analysis.figures.base import FRAMES, Figure, FrameName
from muvla.errors import MuvlaError, unknown_name

GROUP = "muvla.figures"  # entry-point group of other packages

# Name → module and class. A report draws the figures in this order.
FIGURES: dict[str, str] = {
    "rates": "analysis.figures.rates:RatesFigure",
    "interventions": "analysis.figures.interventions:InterventionRatesFigure",
    "paired": "analysis.figures.paired:PairedFigure",
    "follow": "analysis.figures.follow:FollowFigure",
    "chunks": "analysis.figures.chunks:ChunksFigure",
    "curves": "analysis.figures.curves:CurvesFigure",
    "heatmap": "analysis.figures.heatmap:HeatmapFigure",
    "measurement": "analysis.figures.measurement:MeasurementFigure",
}


def registered() -> dict[str, str]:
    """Name → import string of every figure, those of installed packages included.

    Raises:
        MuvlaError: a package registers a name that is taken.
    """
    places = dict(FIGURES)
    for point in entry_points(group=GROUP):
        if places.setdefault(point.name, point.value) != point.value:
            raise MuvlaError(
                f"entry point {GROUP}",
                got=f"{point.name} = {point.value}",
                expected=f"a name other than {', '.join(places)}",
                remedy="rename the entry point in that package",
            )
    return places


def get_figure(name: str) -> Figure:
    """The figure of this name.

    Raises:
        MuvlaError: no figure has this name, or its class breaks the contract of `analysis.figures.base.Figure`.
    """
    places = registered()
    if name not in places:
        raise unknown_name("figure", name, places)
    module, _, attribute = places[name].partition(":")
    member = getattr(importlib.import_module(module), attribute)
    if not (isinstance(member, type) and issubclass(member, Figure)) or getattr(member, "frame", None) not in FRAMES:
        raise MuvlaError(
            f"figure {name}",
            got=places[name],
            expected=f"a subclass of analysis.figures.base.Figure with `frame` one of {', '.join(FRAMES)}",
            remedy="derive the class from Figure and set its `frame`",
        )
    return member()


def figures_of(frame: FrameName) -> dict[str, Figure]:
    """The figures that are drawn from this frame, by name."""
    figures = {name: get_figure(name) for name in registered()}
    return {name: figure for name, figure in figures.items() if figure.frame == frame}
