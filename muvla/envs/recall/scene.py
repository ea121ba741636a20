"""Discs on a plane and two cameras that look at them.

Units: the workspace is [-1, 1]², x to the right, y up; images are uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvla.envs.colours import COLOURS, Colour

BACKGROUND: Colour = (40, 40, 48)
NEUTRAL: Colour = (128, 128, 128)
EFFECTOR: Colour = (255, 255, 255)
EFFECTOR_RADIUS = 0.1
DISC_RADIUS = 0.2
WRIST_VIEW = 0.5  # half the side of what the wrist camera sees
# The shifts, each of looks alone: where the base camera looks, how bright pictures are, a disc that nothing touches.
CAMERA_MOVE = (0.1, 0.0)
DIMMED = 0.5


@dataclass(frozen=True)
class Disc:
    x: float
    y: float
    colour: Colour
    radius: float = DISC_RADIUS


DISTRACTOR = Disc(0.75, -0.75, COLOURS["brown"])  # behind the effector's start: no way to a target leads over it


def render(discs: list[Disc], effector: np.ndarray, size: int, shift: str | None = None) -> np.ndarray:
    """(2, size, size, 3) uint8: the base camera sees the whole plane, the wrist camera the effector's surroundings."""
    shown = [*discs, DISTRACTOR] if shift == "distractor" else discs
    drawn = [*shown, Disc(float(effector[0]), float(effector[1]), EFFECTOR, EFFECTOR_RADIUS)]
    base = _draw(drawn, *(CAMERA_MOVE if shift == "camera" else (0.0, 0.0)), 1.0, size)
    wrist = _draw(drawn, float(effector[0]), float(effector[1]), WRIST_VIEW, size)
    pictures = np.stack([base, wrist])
    return np.rint(pictures * DIMMED).astype(np.uint8) if shift == "light" else pictures


def _draw(discs: list[Disc], centre_x: float, centre_y: float, half_side: float, size: int) -> np.ndarray:
    """Discs with edges blended over one pixel, so that a position is readable below the pixel grid."""
    pixel = 2 * half_side / size
    grid = (np.arange(size) + 0.5) * pixel - half_side
    xs, ys = grid + centre_x, (-grid + centre_y)[:, None]
    image = np.full((size, size, 3), BACKGROUND, dtype=np.float32)
    for disc in discs:
        distance = np.hypot(xs - disc.x, ys - disc.y)
        cover = np.clip((disc.radius - distance) / pixel + 0.5, 0, 1)[..., None]
        image += cover * (np.asarray(disc.colour, dtype=np.float32) - image)
    return np.rint(image).astype(np.uint8)
