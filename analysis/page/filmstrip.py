"""The task in a few pictures: one demonstration, with the first frame of every phase and the last frame."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from analysis.page.content import Filmstrip
from analysis.page.pictures import data_uri, side_by_side, webp
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.utils.foreign import read_model
from muvla.utils.io import write_atomically

NAME = "filmstrip.json"
MOST = 6  # pictures


def make_filmstrip(store: EpisodeStore) -> Filmstrip:
    """The filmstrip of the first demonstration of a dataset; of a mixture's first dataset."""
    part = store.parts[0]
    length, start = int(part.lengths[0]), int(part.starts[0])
    phases = [Phase(int(phase)) for phase in part["phase"][start : start + length]]
    pictures = []
    for step in _steps(phases):
        frame = side_by_side(np.asarray(part["images"][start + step]))
        name = "step" if phases[step] == Phase.UNKNOWN else phases[step].name.lower().replace("_", " ")
        pictures.append((step, name, data_uri(webp(frame, part["images"].shape[2]))))
    return Filmstrip(part.spec.task.name, str(part.index[0].get("instruction") or ""), tuple(pictures))


def _steps(phases: list[Phase]) -> list[int]:
    """The first step of every phase and the last step; even steps in an episode of one phase."""
    changes = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(phases)) if a != b)]
    if len(changes) == 1:
        return sorted(set(np.linspace(0, len(phases) - 1, 4).round().astype(int).tolist()))
    steps = sorted({*changes, (changes[-1] + len(phases) - 1) // 2, len(phases) - 1})
    return steps if len(steps) <= MOST else [*steps[: MOST - 1], steps[-1]]


def save_filmstrip(filmstrip: Filmstrip, folder: Path) -> None:
    """Writes the filmstrip beside the page, so that a page without the dataset shows it too."""
    write_atomically(folder / NAME, msgspec.json.encode(filmstrip))


def load_filmstrip(folder: Path) -> Filmstrip | None:
    """The filmstrip that `save_filmstrip` wrote, or None."""
    file = folder / NAME
    return read_model(file, Filmstrip) if file.exists() else None
