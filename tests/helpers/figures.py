"""Figures for tests: drawn by name, and looked at as a reader would."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.figures.base import Subject
from analysis.figures.registry import get_figure


def draw(name, lines, **fields):
    """A registered figure of these lines; `fields` are those of its subject."""
    return get_figure(name).draw(Subject(lines, **fields))


def all_inside(figure):
    """True if no title and no legend is cut off."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [part.get_window_extent(canvas.get_renderer()) for part in (*figure.texts, *figure.legends)]
    return all(b.x0 >= 0 and b.x1 <= figure.bbox.width and b.y0 >= 0 and b.y1 <= figure.bbox.height for b in boxes)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []
