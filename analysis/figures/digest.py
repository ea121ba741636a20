"""A digest of the data that a figure shows, which says if a committed picture is current."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

KEY = "Data"  # of the PNG file's text that holds the digest
DECIMALS = 6


def data_digest(figure: Drawing) -> str:
    """SHA-256 of every panel's lines, segments, images, words and ticks; styles and sizes do not count."""
    text = json.dumps([_panel(axes) for axes in figure.axes], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _panel(axes: Any) -> dict[str, Any]:
    segments = [part.get_segments() for part in axes.collections if hasattr(part, "get_segments")]
    return {
        "title": " ".join(axes.get_title().split()),
        "lines": [_numbers(line.get_xydata()) for line in axes.lines],
        "segments": [_numbers(each) for several in segments for each in several],
        "images": [_numbers(image.get_array()) for image in axes.images],
        "words": [text.get_text() for text in axes.texts],
        "ticks": [[t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)],
    }


def _numbers(values: Any) -> list[Any]:
    """Rounded numbers as nested lists; missing numbers are null."""
    filled = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    rounded = np.round(filled, DECIMALS) + 0.0  # no negative zero
    return np.where(np.isnan(rounded), None, rounded.astype(object)).tolist()
