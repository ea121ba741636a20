"""A summary of a dataset in text and pictures, to look at before training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from muvla.data.derived_phases import RuleAccuracy
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.utils.io import disk_errors

SHEET = "contact-sheet.png"
EPISODES = 8  # rows of the contact sheet
TILE, LINE, GAP = 128, 14, 4  # pixels: side of a picture, height of its text, gap between pictures


def summarize(store: EpisodeStore) -> Iterator[str]:
    """Yields lines of text about a dataset."""
    lengths, s = store.lengths, Statistics.from_store(store)
    yield f"{store.path}: {len(store)} episodes of {store.spec.task.name}, content {store.sha256}"
    origin = store.meta.get("origin")
    yield f"imported from {origin}" if origin else f"collected, {store.attempts} attempts from seed {store.spec.seed}"
    if "derived" in store.meta:
        yield f"executed actions are {RuleAccuracy(**store.meta['derived']['checked_on']).line()}"
    yield (
        f"{store.frames} frames; episodes of {lengths.min()} to {lengths.max()} frames, median {np.median(lengths):g}; "
        f"images (cameras, height, width, channels) {store['images'].shape[1:]}"
    )
    phase, counts = np.unique(store["phase"], return_counts=True)
    shares = ", ".join(f"{Phase(p).name.lower()} {n}" for p, n in zip(phase, counts, strict=True))
    yield f"frames per phase: {shares if store.knows_executed else 'unknown'}"
    for instruction in store.instructions:
        number = sum(line["instruction"] == instruction for line in store.index)
        yield f"instruction, {number} episodes: {instruction}"
    source = "executed" if store.knows_executed else "recorded, because executed actions are unknown"
    for name, low, high, mean, std in (
        (f"actions ({source})", s.action_low, s.action_high, s.action_mean, s.action_std),
        ("proprio", s.proprio_low, s.proprio_high, s.proprio_mean, s.proprio_std),
    ):
        yield f"{name}: q01 {_numbers(low)}, q99 {_numbers(high)}, mean {_numbers(mean)}, std {_numbers(std)}"
    yield f"conventions: {', '.join(f'{name} {value}' for name, value in store.conventions.shown.items())}"
    if store.pass_through:
        yield f"action dimensions without scaling (from 0): {', '.join(map(str, store.pass_through))}"


def write_contact_sheet(store: EpisodeStore) -> Path:
    """Writes a picture beside the columns and returns its path.

    The picture shows the first, middle and last frame of every camera, for evenly chosen episodes.
    """
    chosen = np.unique(np.linspace(0, len(store) - 1, EPISODES).astype(int))
    cameras = store["images"].shape[1]
    width, height = TILE + GAP, TILE + LINE + GAP
    sheet = Image.new("RGB", (3 * cameras * width, len(chosen) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, episode in enumerate(chosen):
        length = int(store.lengths[episode])
        for column, step in enumerate((0, length // 2, length - 1)):
            frame = int(store.starts[episode]) + step
            phase = f", {Phase(store['phase'][frame]).name.lower()}" if store.knows_executed else ""
            draw.text((column * cameras * width, row * height), f"episode {episode}, step {step}{phase}", fill="black")
            for camera, pixels in enumerate(store["images"][frame]):
                tile = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BOX)
                sheet.paste(tile, ((column * cameras + camera) * width, row * height + LINE))
    file = store.path / SHEET
    with disk_errors(file):
        sheet.save(file)
    return file


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
