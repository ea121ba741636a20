"""From a camera's frames to images of the model's size: the pipeline of the released policies (spec 4.3).

The pipeline resizes uint8 frames of any size to the model's 224 pixels (Lanczos-3 with antialiasing) and rounds to
bytes. It then crops the central 90 % of the area and resizes the crop back to 224 pixels (bilinear). The definition is
TensorFlow's `image.resize` and `image.crop_and_resize`, computed here without TensorFlow: both steps are linear and
separable, so each step is a matrix on the rows and a matrix on the columns.

Legend: h×w pixels of the frame, s of the model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from muvla.errors import MuvlaError

CROPPED_AREA = 0.9
LANCZOS_RADIUS = 3


def prepare(images: Tensor, size: int, how: str) -> Tensor:
    """Returns (…, 3, s, s) uint8 images.

    Args:
        images: (…, 3, h, w) uint8.
        size: s.
        how: `ModelConfig.images`. `stored` leaves the frames, `resized` does the first step, `released` both.

    Raises:
        MuvlaError: the images are not uint8.
    """
    if how == "stored":
        return images
    if images.dtype != torch.uint8:
        raise MuvlaError(
            "images", got=str(images.dtype), expected="uint8", remedy="pass the camera's frames as they are"
        )
    resized = _apply(images.float(), lanczos(images.shape[-2], size), lanczos(images.shape[-1], size))
    resized = resized.round().clamp(0, 255).to(torch.uint8)  # bytes again, as the published loader stores them
    if how == "resized":
        return resized
    cropped = _apply(resized.float() / 255, central_crop(size), central_crop(size))
    # TensorFlow converts to bytes so: add half a level, cut the fraction.
    return (cropped.clamp(0, 1) * 255.5).to(torch.uint8)


def _apply(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows.to(images.device) @ images @ columns.to(images.device).T


@lru_cache(maxsize=16)
def lanczos(given: int, size: int) -> Tensor:
    """Returns (size, given) weights; where the image shrinks, the kernel widens by the same factor (antialiasing)."""
    scale = given / size
    width = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    distance = (np.arange(given) + 0.5 - centres[:, None]) / width
    weights = np.where(np.abs(distance) < LANCZOS_RADIUS, np.sinc(distance) * np.sinc(distance / LANCZOS_RADIUS), 0.0)
    return torch.from_numpy((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


@lru_cache(maxsize=4)
def central_crop(size: int) -> Tensor:
    """Returns (size, size) bilinear weights of the central square with 90 % of the area, corners on pixel centres."""
    side = np.sqrt(CROPPED_AREA)
    start = (1 - side) / 2 * (size - 1)
    places = start + np.arange(size) * side
    below = np.minimum(np.floor(places).astype(int), size - 2)
    weights = np.zeros((size, size))
    weights[np.arange(size), below] = 1 - (places - below)
    weights[np.arange(size), below + 1] = places - below
    return torch.from_numpy(weights.astype(np.float32))
