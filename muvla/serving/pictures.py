"""PNG and JPEG pictures to arrays, with bounded memory, and the other way round."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from muvla.serving.refusal import Refused

MOST_PIXELS = 2**24  # a picture of 4096 × 4096; a few bytes of PNG can claim more


def decode_picture(data: bytes, field: str) -> np.ndarray:
    """Return (h, w, 3) uint8 RGB. Grey pictures get three equal channels, and transparency is dropped.

    Raises:
        Refused: the bytes are no whole PNG or JPEG picture of at most MOST_PIXELS pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise _refused(field, f"{picture.width} × {picture.height} pixels")
            return np.asarray(picture.convert("RGB"))
    except Refused:
        raise
    except Exception as error:  # Pillow raises many types for broken files
        raise _refused(field, f"{len(data)} bytes that are no picture ({type(error).__name__})") from None


def centre_square(image: np.ndarray) -> np.ndarray:
    """Return the central square (s, s, 3) of a picture (h, w, 3), s the shorter side."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def encode_png(image: np.ndarray) -> bytes:
    """Return a PNG of (h, w, 3) uint8, without loss."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _refused(field: str, got: str) -> Refused:
    return Refused(
        field,
        got=got,
        expected=f"a whole PNG or JPEG picture of at most {MOST_PIXELS} pixels",
        remedy="encode the camera's frame as PNG or JPEG",
    )
