"""Discs on a plane and two cameras that look at them.

Units: the workspace is [-1, 1]², x to the right, y up; images are uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvla.errors import MuvlaError

Colour = tuple[int, int, int]

# RGB of MIKASA-Robo's RememberColor cubes (μVLA spec 6.1) and the five colours of the published palette probe (spec 7).
COLOURS: dict[str, Colour] = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "maroon": (128, 0, 0),
    "olive": (255, 128, 0),
    "teal": (0, 128, 128),
    "pink": (255, 192, 203),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "brown": (139, 69, 19),
    "white": (255, 255, 255),
}
BACKGROUND: Colour = (40, 40, 48)
NEUTRAL: Colour = (128, 128, 128)
EFFECTOR: Colour = (255, 255, 255)
EFFECTOR_RADIUS = 0.1
DISC_RADIUS = 0.2
WRIST_VIEW = 0.5  # half the side of what the wrist camera sees


@dataclass(frozen=True)
class Disc:
    x: float
    y: float
    colour: Colour
    radius: float = DISC_RADIUS


def colour(name: str) -> Colour:
    if name not in COLOURS:
        raise MuvlaError("task.palette", got=name, expected=f"names among {', '.join(COLOURS)}", remedy="correct it")
    return COLOURS[name]


def render(discs: list[Disc], effector: np.ndarray, size: int) -> np.ndarray:
    """(2, size, size, 3) uint8: the base camera sees the whole plane, the wrist camera the effector's surroundings."""
    drawn = [*discs, Disc(float(effector[0]), float(effector[1]), EFFECTOR, EFFECTOR_RADIUS)]
    base = _draw(drawn, 0.0, 0.0, 1.0, size)
    wrist = _draw(drawn, float(effector[0]), float(effector[1]), WRIST_VIEW, size)
    return np.stack([base, wrist])


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
