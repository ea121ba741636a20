"""What both writers take out of a store."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from muvla.data.store import EpisodeStore

ALREADY_WRITTEN = ("start", "length", "instruction")  # of an index line, by every format itself


def rows(store: EpisodeStore, number: int) -> dict[str, np.ndarray]:
    """The columns of one episode that are known. What was derived is not: in a format that has no place for the rule
    it would pass for the truth."""
    line = store.index[number]
    known = ("executed_action", "phase") if store.knows_phases else ()
    return {
        name: np.asarray(store[name][line["start"] : line["start"] + line["length"]])
        for name in ("images", "proprio", "recorded_action", *known)
    }


def about(line: dict[str, Any]) -> dict[str, Any]:
    """What else an index line tells of its episode."""
    return {name: value for name, value in line.items() if name not in ALREADY_WRITTEN}


def png(pixels: np.ndarray) -> bytes:
    """(h, w, 3) uint8, exactly."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
