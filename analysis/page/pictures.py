"""Pictures inside the page: sheets of frames and single frames as WebP.

Legend: V cameras, h×w image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

SHARP = 64  # pixels; smaller pictures are kept without loss
QUALITY = 72
COLUMNS = 8  # frames in a row of a sheet


def side_by_side(pictures: np.ndarray) -> np.ndarray:
    """(V, h, w, 3) → (h, V·w, 3)."""
    return np.concatenate(list(pictures), axis=1)


def sheet(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames (h, w, 3) in rows of `COLUMNS`; the rest of the last row is black."""
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // COLUMNS)
    page = np.zeros((rows * height, COLUMNS * width, 3), np.uint8)
    for i, frame in enumerate(frames):
        row, column = divmod(i, COLUMNS)
        page[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    return page


def webp(picture: np.ndarray, side: int) -> bytes:
    """The picture (h, w, 3) as WebP: without loss if a camera's `side` is at most `SHARP` pixels."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "WEBP", lossless=side <= SHARP, quality=QUALITY, method=4)
    return content.getvalue()


def data_uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode()
