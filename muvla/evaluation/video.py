"""A video of one episode: the cameras, the policy's actions and the change of its memory.

Legend: T steps, V cameras, h×w image, A action dim.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from muvla.envs.phases import NO_OP_PHASES
from muvla.errors import MuvlaError
from muvla.evaluation.replay import ReplayedEpisode, Step
from muvla.utils.io import write_atomically

FPS = 5  # slow enough to follow; the published demonstrations have 10 steps per second
TILE, BARS, TRACE, LINE, GAP = 192, 160, 72, 16, 8  # pixels
LEAST = 1e-4  # smallest change of the memory that is drawn above the axis
INK, FAINT, BAR, MARK = (30, 30, 30), (215, 215, 215), (31, 119, 180), (214, 39, 40)


def memory_change(steps: list[Step]) -> np.ndarray:
    """Return (T,), 1 − cos between the memory read at a step and at the step before; 0 at the first step.

    The result is (0,) without memory. Reads are compared, not writes, so that the effect of an intervention shows.
    """
    if not steps[0].memory.size:
        return np.zeros(0)
    flat = np.stack([step.memory.ravel() for step in steps]).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=1)
    products = (flat[1:] * flat[:-1]).sum(axis=1)
    scale = lengths[1:] * lengths[:-1]
    cosines = np.divide(products, scale, out=np.ones_like(products), where=scale > 0)
    return np.concatenate([[0.0], np.maximum(0.0, 1 - cosines)])


def compose(replayed: ReplayedEpisode, title: str) -> list[np.ndarray]:
    """Return a frame per step and a last frame for the end, all (height, width, 3) uint8 with even sides.

    A frame shows the cameras side by side, the action as bars, and the change of the memory so far.
    """
    change = memory_change(replayed.steps)
    cameras = len(replayed.frames[0])
    width = GAP + cameras * (TILE + GAP) + BARS + GAP
    height = 2 * LINE + TILE + GAP + LINE + TRACE + GAP
    frames = []
    for t, pictures in enumerate(replayed.frames):
        page = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(page)
        last = t == len(replayed.steps)
        draw.text((GAP, 2), title, INK)
        draw.text((GAP, LINE + 2), _caption(replayed, t), MARK if last else INK)
        for camera, pixels in enumerate(pictures):
            tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)
            page.paste(tile, (GAP + camera * (TILE + GAP), 2 * LINE))
        if not last:
            _bars(draw, replayed.steps[t], (width - BARS - GAP, 2 * LINE))
        _trace(draw, replayed.steps, change, t, (GAP, 2 * LINE + TILE + GAP, width - GAP))
        frames.append(np.asarray(page))
    return frames


def _caption(replayed: ReplayedEpisode, t: int) -> str:
    info = replayed.outcome.info
    if t < len(replayed.steps):
        return f"step {t}  {replayed.steps[t].phase.name.lower()}"
    return f"end after {t} steps: success {info['success_once']}, choice {info['choice']}, target {info['target']}"


def _bars(draw: ImageDraw.ImageDraw, step: Step, corner: tuple[int, int]) -> None:
    """Draw a bar per number of the action, from -1 to 1: red if clipped, hollow in phases that execute no action."""
    left, top = corner
    middle, half, row = left + BARS // 2, BARS // 2, TILE // len(step.action)
    draw.line([(middle, top), (middle, top + TILE)], FAINT)
    for i, value in enumerate(step.action.tolist()):
        end = middle + round(half * float(np.clip(value, -1, 1)))
        box = [min(middle, end), top + i * row + 2, max(middle, end), top + (i + 1) * row - 3]
        colour = MARK if abs(value) > 1 else BAR
        draw.rectangle(box, None if step.phase in NO_OP_PHASES else colour, colour)


def _trace(
    draw: ImageDraw.ImageDraw, steps: list[Step], change: np.ndarray, now: int, corners: tuple[int, int, int]
) -> None:
    left, top, right = corners
    if not len(change):
        draw.text((left, top), "no memory", INK)
        return
    draw.text((left, top), f"change of the memory read, 1 - cos, logarithmic from {LEAST:g} to 2", INK)
    top += LINE
    draw.rectangle([left, top, right, top + TRACE], None, FAINT)
    x_of = [left + round((right - left) * t / max(1, len(steps) - 1)) for t in range(len(steps))]
    for t in range(1, len(steps)):
        if steps[t].phase != steps[t - 1].phase:
            draw.line([(x_of[t], top), (x_of[t], top + TRACE)], FAINT)
    heights = np.log(np.maximum(change, LEAST) / LEAST) / np.log(2 / LEAST)
    points = [(x, top + TRACE - round(TRACE * h)) for x, h in zip(x_of, heights.tolist(), strict=True)]
    shown = points[: now + 1]
    if len(shown) > 1:
        draw.line(shown, BAR, 2)
    x, y = shown[-1]
    draw.ellipse([x - 3, y - 3, x + 3, y + 3], MARK)


def write_video(frames: list[np.ndarray], file: Path) -> None:
    """Write the frames as H.264 in mp4. Raises MuvlaError without imageio and PyAV."""
    try:
        import av  # noqa: F401 (what imageio encodes with)
        import imageio.v3 as iio
    except ImportError as error:
        raise MuvlaError(
            "video", got=str(error), expected="imageio and PyAV", remedy="run `pip install -e '.[video]'`"
        ) from error
    # FFmpeg's errors about a full disk are none of Python's, so Python writes the file.
    content = iio.imwrite("<bytes>", np.stack(frames), extension=".mp4", plugin="pyav", codec="libx264", fps=FPS)
    write_atomically(file, content)
