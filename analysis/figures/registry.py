"""The figures by name. A figure is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from analysis.figures.base import FRAMES, Figure, FrameName
from muvla.errors import MuvlaError
from muvla.utils.registry import Registry

# A report draws the figures in this order, and those of other packages after them.
FIGURES = Registry(
    "muvla.figures",
    {
        "rates": "analysis.figures.rates:RatesFigure",
        "interventions": "analysis.figures.interventions:InterventionRatesFigure",
        "updates": "analysis.figures.updates:UpdatesFigure",
        "first_decision": "analysis.figures.first_decision:FirstDecisionFigure",
        "learning": "analysis.figures.learning:LearningFigure",
        "delay": "analysis.figures.delay:DelayFigure",
        "cost": "analysis.figures.cost:CostFigure",
        "paired": "analysis.figures.paired:PairedFigure",
        "follow": "analysis.figures.follow:FollowFigure",
        "chunks": "analysis.figures.chunks:ChunksFigure",
        "curves": "analysis.figures.curves:CurvesFigure",
        "heatmap": "analysis.figures.heatmap:HeatmapFigure",
        "measurement": "analysis.figures.measurement:MeasurementFigure",
        "profile": "analysis.figures.profile:ProfileFigure",
    },
    "figure",
)


def get_figure(name: str) -> Figure:
    """The figure of this name.

    Raises:
        MuvlaError: no figure has this name, or its class breaks the contract of `analysis.figures.base.Figure`.
    """
    member = FIGURES.load(name)
    if not (isinstance(member, type) and issubclass(member, Figure)) or getattr(member, "frame", None) not in FRAMES:
        raise MuvlaError(
            f"figure {name}",
            got=FIGURES.places()[name],
            expected=f"a subclass of analysis.figures.base.Figure with `frame` one of {', '.join(FRAMES)}",
            remedy="derive the class from Figure and set its `frame`",
        )
    return member()


def figures_of(frame: FrameName) -> dict[str, Figure]:
    """The figures that are drawn from this frame, by name."""
    return {name: figure for name, figure in FIGURES.each(get_figure) if figure.frame == frame}
