"""A panel per variant: their grid, their names, and the labels at its edges."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from analysis.figures import style

PER_ROW = 5  # panels side by side
LETTERS = 11  # of a panel's name per inch


def variant_panels(
    names: list[str],
    panel: tuple[float, float],
    margin: tuple[float, float],
    rows: int = 1,
    same_scale: bool = True,
) -> tuple[Drawing, np.ndarray]:
    """A figure with a column of panels per variant, under its name.

    Columns that do not fit beside each other stand in blocks below each other, as far as the page is high enough.

    Args:
        names: the variants' names, in order.
        panel: width and height of a panel in inches.
        margin: width and height of everything around the panels in inches.
        rows: panels of a variant, below each other.
        same_scale: all panels share the vertical axis; False for an axis per row.

    Returns:
        The figure, and the panels as an array of shape (rows, names).
    """
    tallest = max(1, int((style.TALLEST - margin[1]) / (panel[1] * rows)))
    blocks = min(-(-len(names) // PER_ROW), tallest)
    columns = -(-len(names) // blocks)
    figure, grid = style.new_figure(
        margin[0] + panel[0] * columns,
        margin[1] + panel[1] * rows * blocks,
        rows * blocks,
        columns,
        sharex=True,
        sharey=same_scale,
    )
    panels = grid.reshape(blocks, rows, columns).transpose(1, 0, 2).reshape(rows, blocks * columns)
    for axes in panels[:, len(names) :].flat:
        axes.set_visible(False)
    panels = panels[:, : len(names)]
    if not same_scale:
        _share_rows(panels)
    for axes in lowest(panels):  # hidden panels would take the labels of their column with them
        axes.tick_params(labelbottom=True)
    for axes, name in zip(panels[0], names, strict=True):
        _name(axes, name)
    return figure, panels


def leftmost(panels: np.ndarray) -> list[Axes]:
    """The panels at the left edge, from top to bottom of every block; they have the vertical axis's name."""
    return [axes for axes in panels.flat if axes.get_subplotspec().is_first_col()]


def lowest(panels: np.ndarray) -> list[Axes]:
    """The lowest panel of every column; they have the horizontal axis's name."""
    columns = panels[0, 0].get_subplotspec().get_gridspec().ncols
    return list(panels[-1, -columns:])


def _name(axes: Axes, name: str) -> None:
    """Write a panel's name above it, in lines that fit its width and break at commas where they can."""
    columns = axes.get_subplotspec().get_gridspec().ncols
    letters = int(LETTERS * axes.figure.get_figwidth() / columns)
    lines = [""]
    for part in name.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        lines = [*lines[:-1], longer] if len(longer) < letters or not lines[-1] else [*lines, part]
    axes.set_title(",\n".join(style.wrapped(line, letters) for line in lines), fontsize=style.TEXT)


def _share_rows(panels: np.ndarray) -> None:
    for row in panels:
        for axes in row[1:]:
            axes.sharey(row[0])
            if not axes.get_subplotspec().is_first_col():
                axes.tick_params(labelleft=False)
