"""Stand-ins for assets that no package contains: a mug of boxes for YCB's mug, and a ball for the lamps' bulb.

Each file is labelled as a stand-in, and every result computed with a stand-in carries the label.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from muvla.envs.assets import AssetSet
from muvla.envs.mikasa.assets import BULB, LAMP, MUG, SHELLGAME, STAND_IN

# Metres, about those of the scanned mug: upright, centred in the origin, with the handle along +x.
HEIGHT, RADIUS, WALL, HANDLE = 0.081, 0.042, 0.006, 0.030
_SIDES = 16  # boxes that form the wall
# Metres, before the suite scales the bulb by 0.85 and lowers it by 7 cm.
BULB_RADIUS, BULB_HEIGHT = 0.014, 0.082


def stand_ins(assets: Iterable[AssetSet] = (SHELLGAME, LAMP)) -> tuple[str, ...]:
    """Names of the models in these assets that are stand-ins of this project."""
    present = [asset_set for asset_set in assets if not asset_set.missing()]
    return tuple(name for asset_set in present for name in asset_set.stand_ins(asset_set.folder, {}))


def write_stand_in(root: Path) -> None:
    """Write a mug of convex pieces under `root`. MS_ASSET_DIR must name `root` before ManiSkill is imported."""
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


def write_bulb(folder: Path) -> None:
    """Write a ball as binary glTF into `folder`, which MUVLA_MIKASA_LAMP names. The suite expects +y as the axis."""
    around, up = np.meshgrid(np.linspace(0, 2 * np.pi, _SIDES, endpoint=False), np.linspace(0.05, np.pi - 0.05, 9))
    ball = np.stack([np.sin(up) * np.cos(around), np.cos(up), np.sin(up) * np.sin(around)], axis=-1).reshape(-1, 3)
    corners = (BULB_RADIUS * ball + [0, BULB_HEIGHT, 0]).astype("<f4")
    ring = np.arange(_SIDES)
    row = np.stack(
        [ring, (ring + 1) % _SIDES, ring + _SIDES, (ring + 1) % _SIDES, (ring + 1) % _SIDES + _SIDES, ring + _SIDES],
        axis=1,
    )
    faces = np.concatenate([row + _SIDES * i for i in range(8)]).astype("<u4")
    data = corners.tobytes() + ball.astype("<f4").tobytes() + faces.tobytes()
    sizes = [corners.nbytes, corners.nbytes, faces.nbytes]
    shape = {"bufferView": 0, "componentType": 5126, "count": len(corners), "type": "VEC3"}
    bounds = {"min": corners.min(axis=0).tolist(), "max": corners.max(axis=0).tolist()}
    described = {
        "asset": {"version": "2.0", "generator": STAND_IN},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1]}}],
        "accessors": [
            shape | bounds,
            shape | {"bufferView": 1},
            {"bufferView": 2, "componentType": 5125, "count": faces.size, "type": "SCALAR"},
        ],
        "bufferViews": [{"buffer": 0, "byteOffset": sum(sizes[:i]), "byteLength": n} for i, n in enumerate(sizes)],
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BULB).write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts)


# Faces of a box whose corners are numbered by the bits of (x, y, z): two triangles a side, seen from outside.
_FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ]
)


def _box(centre: tuple[float, float, float], size: tuple[float, float, float], turn: float = 0.0) -> np.ndarray:
    """Corners (8, 3) of a box, turned by `turn` radians about the vertical axis through the origin."""
    bits = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    cos, sin = np.cos(turn), np.sin(turn)
    return (np.array(centre) + bits * size) @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def _mug() -> list[np.ndarray]:
    middle = RADIUS - WALL / 2
    width = 2 * RADIUS * np.tan(np.pi / _SIDES)
    walls = [_box((middle, 0, 0), (WALL, width, HEIGHT), 2 * np.pi * i / _SIDES) for i in range(_SIDES)]
    # Bars from wall to wall: the upside-down base must leave no gap through which a camera sees the ball.
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
