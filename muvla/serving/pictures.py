"""PNG and JPEG pictures to arrays, with bounded memory, and the other way round."""

from __future__ import annotations

import asyncio
import io

import numpy as np
from PIL import Image

from muvla.serving.refusal import Refused

MOST_PIXELS = 2**24  # a picture of 4096 × 4096; a few bytes of PNG can claim more
SMALL = 2**16  # pixels of 256 × 256


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


async def decode_beside(data: bytes, field: str) -> np.ndarray:
    """`decode_picture` for an event loop: a large picture is decoded in a thread, so that other sessions do not wait.

    A small picture takes less time than the change to a thread and back on a busy machine.
    """
    if len(data) <= 4 * SMALL and count_pixels(data) <= SMALL:
        return decode_picture(data, field)
    return await asyncio.to_thread(decode_picture, data, field)


def count_pixels(data: bytes) -> int:
    """The number of pixels that the header of a PNG or JPEG picture claims; 0 for bytes that are no picture."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            return picture.width * picture.height
    except Exception:  # Pillow raises many types for broken files
        return 0


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
