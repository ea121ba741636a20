"""The parts of a store that every writer needs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from muvla.data.store import EpisodeStore

ALREADY_WRITTEN = ("start", "length", "instruction")  # index fields that every format stores in its own way


def read_rows(store: EpisodeStore, number: int) -> dict[str, np.ndarray]:
    """Returns the recorded columns of one episode.

    Derived columns are omitted: in a format without a place for the rule they would pass for recorded ones.
    """
    line = store.index[number]
    optional = ("executed_action", "phase") if store.knows_phases else ()
    return {
        name: np.asarray(store[name][line["start"] : line["start"] + line["length"]])
        for name in ("images", "proprio", "recorded_action", *optional)
    }


def get_about(line: dict[str, Any]) -> dict[str, Any]:
    """Returns the other fields of an index line."""
    return {name: value for name, value in line.items() if name not in ALREADY_WRITTEN}


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes (h, w, 3) uint8 without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
