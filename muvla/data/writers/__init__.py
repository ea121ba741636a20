"""Datasets in the formats of others, so that what is collected here can be used elsewhere.

Pictures are written as PNG in both: every frame comes back as it is stored, bit for bit, where a video would change it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from muvla.data.readers.source import NOTE
from muvla.data.store import EpisodeStore
from muvla.data.writers.lerobot import CAMERAS, cameras, write_lerobot
from muvla.data.writers.rlds import write_rlds
from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors, locked, write_json


def write_dataset(
    store: EpisodeStore, directory: Path, format: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Writes it whole or not at all, and returns the folder that `muvla data import` takes: `directory`, or of RLDS its
    version. Raises MuvlaError for a directory that exists, for a dataset that the format has no place for, and for a
    full disk."""
    if directory.exists():
        raise MuvlaError(
            str(directory), got="something there", expected="a new folder", remedy="choose another, or remove it"
        )
    parent = directory.resolve().parent
    unfinished = parent / f".{directory.name}.unfinished"
    with locked(parent / f".{directory.name}.lock"):
        shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process left
        try:
            with disk_errors(directory):
                unfinished.mkdir(parents=True)
                write = {"rlds": write_rlds, "lerobot": write_lerobot}[format]
                inner = write(store, unfinished, directory.name, progress)
                if store.pass_through:
                    write_json(unfinished / inner / NOTE, {"pass_through": store.pass_through})
                unfinished.rename(directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    (parent / f".{directory.name}.lock").unlink(missing_ok=True)
    return directory / inner


def way_back(store: EpisodeStore, format: str) -> str:
    """The options with which `muvla data import` reads what was written as it is, whatever its sizes: a schema of the
    published ones has theirs, unless features are named."""
    told = ["--schema muvla"]
    if not store.knows_phases:
        state, action = {
            "rlds": ("steps/observation/proprio", "steps/action"),
            "lerobot": ("observation.state", "action"),
        }[format]
        told = [f"--schema mikasa --proprio {state} --action {action}"]
    if format == "lerobot" and store["images"].shape[1] != len(CAMERAS):
        told += [f"--camera {name}" for name in cameras(store)]
    return " ".join(told)
