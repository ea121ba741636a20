"""Discs on a plane, drawn by two cameras.

Units: the workspace is [-1, 1]², x to the right, y up; images are uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvla.envs.colours import COLOURS, Colour

BACKGROUND: Colour = (40, 40, 48)
NEUTRAL: Colour = (128, 128, 128)
COVERED: Colour = (100, 60, 140)  # a disc that cannot be touched yet
EFFECTOR: Colour = (255, 255, 255)
EFFECTOR_RADIUS = 0.1
DISC_RADIUS = 0.2
WRIST_VIEW = 0.5  # half the side of the wrist camera's view
# The shifts change the appearance alone: the base camera's centre, the brightness, and a disc that cannot be touched.
CAMERA_MOVE = (0.1, 0.0)
DIMMED = 0.5


@dataclass(frozen=True)
class Disc:
    x: float
    y: float
    colour: Colour
    radius: float = DISC_RADIUS


DISTRACTOR = Disc(0.75, -0.75, COLOURS["brown"])  # behind the start, so that no path to a target crosses it


def render(discs: list[Disc], effector: np.ndarray, size: int, shift: str | None = None) -> np.ndarray:
    """Images (2, size, size, 3) uint8: the base camera sees the plane, the wrist camera the effector's surroundings.

    Args:
        discs: what lies on the plane.
        effector: (2,) position.
        size: pixels.
        shift: None, `camera`, `light` or `distractor`.
    """
    shown = [*discs, DISTRACTOR] if shift == "distractor" else discs
    drawn = [*shown, Disc(float(effector[0]), float(effector[1]), EFFECTOR, EFFECTOR_RADIUS)]
    base = _draw(drawn, *(CAMERA_MOVE if shift == "camera" else (0.0, 0.0)), 1.0, size)
    wrist = _draw(drawn, float(effector[0]), float(effector[1]), WRIST_VIEW, size)
    pictures = np.stack([base, wrist])
    return np.rint(pictures * DIMMED).astype(np.uint8) if shift == "light" else pictures


def _draw(discs: list[Disc], centre_x: float, centre_y: float, half_side: float, size: int) -> np.ndarray:
    """Draw discs whose edges are blended over one pixel, so that positions are visible below the pixel grid."""
    pixel = 2 * half_side / size
    grid = (np.arange(size) + 0.5) * pixel - half_side
    xs, ys = grid + centre_x, (-grid + centre_y)[:, None]
    image = np.full((size, size, 3), BACKGROUND, dtype=np.float32)
    for disc in discs:
        distance = np.hypot(xs - disc.x, ys - disc.y)
        cover = np.clip((disc.radius - distance) / pixel + 0.5, 0, 1)[..., None]
        image += cover * (np.asarray(disc.colour, dtype=np.float32) - image)
    return np.rint(image).astype(np.uint8)
