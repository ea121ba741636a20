"""A mug of boxes that stands in for the one asset that the published tasks need and no package brings: YCB's mug, of
the ShellGame tasks. It says of itself that it is a stand-in, and everything computed with it carries that label.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from muvla.envs.assets import MUG, SHELLGAME, STAND_IN

# Metres; about the scanned mug's, upright, its middle in the origin, the handle along +x.
HEIGHT, RADIUS, WALL, HANDLE = 0.081, 0.042, 0.006, 0.030
_SIDES = 16  # boxes of the wall


def stand_ins() -> tuple[str, ...]:
    """Names of the models there that this project made in the place of the published ones."""
    return () if SHELLGAME.missing() else SHELLGAME.stand_ins(SHELLGAME.folder, {})


def write_stand_in(root: Path) -> None:
    """A mug of convex pieces under `root`, to be named by MS_ASSET_DIR before ManiSkill is imported."""
    described, collision, shown = (root / part for part in SHELLGAME.parts[:3])
    collision.parent.mkdir(parents=True, exist_ok=True)
    boxes = _mug()
    corners = np.concatenate([corners for corners in boxes])
    low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    model = {"bbox": {"min": low, "max": high}, "scales": [1.0], "density": 1000, STAND_IN: True}
    faces = np.concatenate([_FACES + 8 * i for i in range(len(boxes))])
    described.write_text(json.dumps({MUG: model}), encoding="utf-8")
    collision.write_text(_ply(corners, faces), encoding="ascii")
    shown.write_text(_obj(corners, faces), encoding="ascii")


# Of a box whose corners are numbered by the bits of (x, y, z): two triangles a side, seen from outside.
_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
)  # fmt: skip


def _box(centre: tuple[float, float, float], size: tuple[float, float, float], turn: float = 0.0) -> np.ndarray:
    """Corners (8, 3) of a box that is turned about the vertical axis through the origin, in radians."""
    bits = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    cos, sin = np.cos(turn), np.sin(turn)
    return (np.array(centre) + bits * size) @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def _mug() -> list[np.ndarray]:
    middle = RADIUS - WALL / 2
    width = 2 * RADIUS * np.tan(np.pi / _SIDES)
    walls = [_box((middle, 0, 0), (WALL, width, HEIGHT), 2 * np.pi * i / _SIDES) for i in range(_SIDES)]
    # Bars from wall to wall: upside down, the base must leave no gap that a camera sees the ball through.
    centre = (0, 0, (WALL - HEIGHT) / 2)
    base = [_box(centre, (2 * middle, width, WALL), 2 * np.pi * i / _SIDES) for i in range(_SIDES // 2)]
    out = RADIUS + HANDLE / 2
    bars = [_box((out, 0, z), (HANDLE, WALL * 2, WALL)) for z in (0.022, -0.022)]
    return [*walls, *base, *bars, _box((RADIUS + HANDLE, 0, 0), (WALL, WALL * 2, 0.05))]


def _ply(corners: np.ndarray, faces: np.ndarray) -> str:
    head = (
        f"ply\nformat ascii 1.0\nelement vertex {len(corners)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    lines = [" ".join(f"{x:.6f}" for x in corner) for corner in corners]
    return head + "\n".join([*lines, *(f"3 {a} {b} {c}" for a, b, c in faces)]) + "\n"


def _obj(corners: np.ndarray, faces: np.ndarray) -> str:
    lines = ["v " + " ".join(f"{x:.6f}" for x in corner) for corner in corners]
    return "\n".join([*lines, *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces)]) + "\n"
