"""Loss of JPEG compression, for evaluations whose published form sends images to a server as JPEG files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def compress(images: np.ndarray, quality: int) -> np.ndarray:
    """Return images (V, h, w, 3) uint8 after JPEG at this quality (1 to 100), with Pillow's colour sampling."""
    return np.stack([_compress(image, quality) for image in images])


def _compress(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
