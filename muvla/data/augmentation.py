"""Random crops and colours of training frames, as published (spec 4.3).

A change crops a square of 90 % of the area and shifts brightness, contrast, saturation and hue, each clipped to
[0, 1]. The square lies anywhere in the image or, as published, on the diagonal (`data.crop`). The published training
draws a new change for every frame and camera, which also shifts the colour to be remembered. Here a cell declares one
change per episode and camera, or one per frame. Draws are keyed by (training seed, slot, visit, camera[, step]), so all
cells of a seed see the same pixels.

Legend: N images, s pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from muvla.utils.rng import numpy_rng

CROPPED_AREA = 0.9
BRIGHTNESS, HUE = 0.2, 0.05  # largest shift
CONTRAST = SATURATION = (0.8, 1.2)  # range of the factor


@dataclass(frozen=True)
class Change:
    """The random change of one image."""

    top: float  # position of the crop, as a fraction of the free margin
    left: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


def draw_change(seed: int, *key: int, diagonal: bool = False) -> Change:
    """Draws a change; `key` is (slot, visit, camera[, step]). With `diagonal` left equals top, as published."""
    rng = numpy_rng(seed, "augmentation", *key)
    top, left = rng.uniform(), rng.uniform()
    return Change(
        top,
        top if diagonal else left,
        rng.uniform(-BRIGHTNESS, BRIGHTNESS),
        rng.uniform(*CONTRAST),
        rng.uniform(*SATURATION),
        rng.uniform(-HUE, HUE),
    )


def augment(images: Tensor, changes: list[Change]) -> Tensor:
    """Applies N changes to (N, 3, s, s) uint8 images."""
    size = images.shape[-1]
    column = lambda name: torch.tensor([getattr(c, name) for c in changes], device=images.device).float()  # noqa: E731
    rows, columns = (_crop(column(name), size) for name in ("top", "left"))
    x = rows @ (images.float() / 255) @ columns.transpose(-1, -2)
    factor = {name: column(name).view(-1, 1, 1, 1) for name in ("brightness", "contrast")}
    x = (x + factor["brightness"]).clamp(0, 1)
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = ((x - mean) * factor["contrast"] + mean).clamp(0, 1)
    x = _in_colour(x, column("saturation").view(-1, 1, 1), column("hue").view(-1, 1, 1))
    return (x.clamp(0, 1) * 255.5).to(torch.uint8)  # add half a level and cut the fraction, as published


def _crop(share: Tensor, size: int) -> Tensor:
    """Returns (N, 1, s, s) bilinear weights of a segment of √0.9 of the side, corners on pixel centres."""
    side = np.sqrt(CROPPED_AREA)
    start = share[:, None] * (1 - side) * (size - 1)
    places = start + torch.arange(size, device=share.device) * side  # (N, s)
    below = places.floor().clamp(max=size - 2)
    weights = torch.zeros(len(share), size, size, device=share.device)
    index = below.long()[..., None]
    weights.scatter_(2, index, (1 - (places - below))[..., None])
    weights.scatter_(2, index + 1, (places - below)[..., None])
    return weights[:, None]


def _in_colour(x: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Scales the saturation and rotates the hue of (N, 3, s, s) images in [0, 1], through HSV."""
    value, most = x.max(dim=1)
    spread = value - x.min(dim=1).values
    safe = torch.where(spread > 0, spread, 1)
    r, g, b = x.unbind(dim=1)
    sector = torch.stack([(g - b) / safe, (b - r) / safe + 2, (r - g) / safe + 4], dim=1)
    turn = (sector.gather(1, most[:, None])[:, 0] / 6 + hue) % 1 * 6
    strength = torch.where(value > 0, spread / torch.where(value > 0, value, 1), 0) * saturation
    strength = strength.clamp(0, 1)
    channels = []
    for offset in (5, 3, 1):
        k = (turn + offset) % 6
        channels.append(value - value * strength * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)
