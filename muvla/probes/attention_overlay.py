"""Attention drawn over the policy's images: a sheet and a video per episode.

Patches lie on the images that the model receives, resized and cropped as configured, so these images are drawn. Each
map has one colour scale per episode, from 0 to its largest patch. The number beside a row is the value of its brightest
colour. The number in a picture is the share of attention that falls on that camera.

Legend: T steps, V cameras, s×s pixels of the model's images, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw

from muvla.evaluation.replay import ReplayedEpisode
from muvla.evaluation.video import GAP, INK, LINE, MARK, compose
from muvla.models.policy import Policy
from muvla.models.preprocessing import prepare
from muvla.models.sequence import Segment
from muvla.probes.attention_maps import ACTION_READ, Attention

TILE = 96  # pixels
MOST = 24  # steps on a sheet; a longer episode shows evenly spaced steps
OPAQUE = 0.6  # opacity of the heat over the picture
HEAT = colormaps["plasma"]  # its brightest colour stays bright over a dark picture
LABEL = 150  # pixels, beside the rows
LABELS = {Segment.MEMORY.name: "memory", ACTION_READ: "action"}


@dataclass(frozen=True)
class AttendedEpisode:
    """An episode of T steps with the attention of every step."""

    policy: Policy
    replayed: ReplayedEpisode
    attention: list[Attention]  # T

    def pictures(self, step: int) -> np.ndarray:
        """Return the model's images (V, s, s, 3) uint8."""
        interface, config = self.policy.interface, self.policy.config
        cameras = self.replayed.frames[step][interface.seen]
        first = self.replayed.frames[0][interface.seen[:1]] if interface.first_image else cameras[:0]
        images = torch.from_numpy(np.concatenate([cameras, first])).movedim(-1, -3)
        return prepare(images, config.size.image_size, config.images).movedim(-3, -1).numpy()

    @cached_property
    def kinds(self) -> dict[str, np.ndarray]:
        """Return label → (T, V, P) shares of attention."""
        rows = self.attention[0].maps
        flat = {f"{LABELS[row]} to vision": np.stack([a.patches(row) for a in self.attention]) for row in rows}
        return flat | {f"{LABELS[row]}, rollout": np.stack([a.rollout[row] for a in self.attention]) for row in rows}


def overlaid(picture: np.ndarray, patches: np.ndarray, top: float) -> Image.Image:
    """Return a picture (s, s, 3) under the heat of its patches (P,), row by row; `top` has the brightest colour."""
    side = round(len(patches) ** 0.5)
    heat = (255 * HEAT(patches.reshape(side, side) / top)[..., :3]).round().astype(np.uint8)
    tile = lambda pixels: Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)  # noqa: E731
    return Image.blend(tile(picture), tile(heat), OPAQUE)


def sheet(episode: AttendedEpisode, title: str) -> Image.Image:
    """Draw a column per step. Each camera has a row of pictures, and below it a row per map."""
    steps = np.unique(np.linspace(0, len(episode.attention) - 1, min(MOST, len(episode.attention))).round().astype(int))
    columns = [_tiles(episode, step) for step in steps.tolist()]
    page = Image.new("RGB", (LABEL + len(steps) * (TILE + 2), 4 * LINE + len(columns[0]) * (TILE + 2)), "white")
    draw = ImageDraw.Draw(page)
    info = episode.replayed.outcome.info
    ended = f"success {info['success_once']}, choice {info['choice']}, target {info['target']}"
    draw.text((GAP, 2), f"{title}: {ended}", INK)
    _scale(page, draw, (GAP, 2 * LINE))
    for column, (step, tiles) in enumerate(zip(steps.tolist(), columns, strict=True)):
        left = LABEL + column * (TILE + 2)
        draw.text((left, 2 * LINE), f"step {step}", INK)
        draw.text((left, 3 * LINE), episode.replayed.steps[step].phase.name.lower(), INK)
        for row, tile in enumerate(tiles):
            _draw_tile(page, draw, tile, (left, 4 * LINE + row * (TILE + 2)))
    for row, tile in enumerate(columns[0]):
        draw.multiline_text((GAP, 4 * LINE + row * (TILE + 2) + TILE // 3), tile.label, INK)
    return page


def video(episode: AttendedEpisode, title: str) -> list[np.ndarray]:
    """Return the frames of the plain episode with the maps beside them: a column per camera, a row per map.

    The last frame, after the last step, repeats the last step's maps.
    """
    frames, kinds = [], len(episode.kinds)
    for t, plain in enumerate(compose(episode.replayed, title)):
        maps = [tile for tile in _tiles(episode, min(t, len(episode.attention) - 1)) if tile.share is not None]
        left, labels = plain.shape[1] + LABEL, plain.shape[1]
        width, height = left + len(maps) // kinds * (TILE + 2) + GAP, LINE + kinds * (TILE + 2) + GAP
        page = Image.new("RGB", (width + width % 2, max(plain.shape[0], height + height % 2)), "white")
        page.paste(Image.fromarray(plain), (0, 0))
        draw = ImageDraw.Draw(page)
        for i, tile in enumerate(maps):
            camera, row = divmod(i, kinds)
            top = LINE + row * (TILE + 2)
            _draw_tile(page, draw, tile, (left + camera * (TILE + 2), top))
            if row == 0:
                draw.text((left + camera * (TILE + 2), 2), f"camera {camera}", INK)
            if camera == 0:
                draw.multiline_text((labels, top + TILE // 3), tile.label.partition("\n")[2], INK)
        _scale(page, draw, (labels, 2))
        frames.append(np.asarray(page))
    return frames


@dataclass(frozen=True)
class _Tile:
    label: str
    picture: Image.Image
    share: float | None  # of attention on this camera; None for a plain picture


def _tiles(episode: AttendedEpisode, step: int) -> list[_Tile]:
    """Return, camera by camera, the picture and the maps over it."""
    tiles = []
    for camera, picture in enumerate(episode.pictures(step)):
        plain = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.NEAREST)
        tiles.append(_Tile(f"camera {camera}", plain, None))
        for name, values in episode.kinds.items():
            top, patches = float(values.max()), values[step, camera]
            label = f"camera {camera}\n{name}\nup to {top:.3f} a patch"
            tiles.append(_Tile(label, overlaid(picture, patches, top), float(patches.sum())))
    return tiles


def _draw_tile(page: Image.Image, draw: ImageDraw.ImageDraw, tile: _Tile, corner: tuple[int, int]) -> None:
    page.paste(tile.picture, corner)
    if tile.share is not None:
        left, top = corner
        draw.rectangle([left, top, left + 28, top + 11], "white")
        draw.text((left + 2, top), f"{tile.share:.2f}", MARK)


def _scale(page: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """Draw the colours from 0 to the largest value."""
    left, top = corner
    draw.text((left, top), "0", INK)
    strip = (255 * HEAT(np.linspace(0, 1, 80))[None, :, :3]).round().astype(np.uint8)
    page.paste(Image.fromarray(strip).resize((80, LINE - 4)), (left + 10, top))
    draw.text((left + 94, top), "most", INK)
