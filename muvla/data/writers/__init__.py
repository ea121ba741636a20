"""Writers of datasets in other projects' formats.

Pictures are written as PNG in both formats, so every frame comes back bit for bit; a video would change it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from muvla.data.readers.source import NOTE
from muvla.data.store import EpisodeStore
from muvla.data.writers.lerobot import CAMERAS, camera_features, write_lerobot
from muvla.data.writers.lerobot import frame_rate as frame_rate  # of what a LeRobotDataset says
from muvla.data.writers.rlds import write_rlds
from muvla.errors import MuvlaError
from muvla.utils.files import NAME_BYTES
from muvla.utils.io import disk_errors, write_json
from muvla.utils.locks import locked, remove_lock


def write_dataset(
    store: EpisodeStore, directory: Path, format: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Writes the dataset whole or not at all; returns the folder that `muvla data import` takes.

    This folder is `directory`, or for RLDS the version's folder in it.

    Args:
        store: the dataset.
        directory: a new folder.
        format: `rlds` or `lerobot`.
        progress: called with (episodes written, episodes).

    Raises:
        MuvlaError: the folder exists, or the format has no place for the dataset.
        DiskError: the disk is full.
    """
    if directory.exists():
        raise MuvlaError(
            "DIRECTORY",
            got=f"{directory}, which exists",
            expected="a new folder",
            remedy="choose another folder, or remove this one",
        )
    if len(os.fsencode(directory.name)) > NAME_BYTES - len(".unfinished") - 1:
        raise MuvlaError(
            "DIRECTORY",
            got=f"a name of {len(os.fsencode(directory.name))} bytes",
            expected=f"at most {NAME_BYTES - len('.unfinished') - 1} bytes",
            remedy="choose a shorter name",
        )
    parent = directory.resolve().parent
    unfinished = parent / f".{directory.name}.unfinished"
    with locked(parent / f".{directory.name}.lock"):
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed process
        try:
            with disk_errors(directory):
                unfinished.mkdir(parents=True)
                write = {"rlds": write_rlds, "lerobot": write_lerobot}[format]
                inner = write(store, unfinished, directory.name, progress)
                if (note := _note(store)) or format == "lerobot":  # a note without a rate says that it is unknown
                    write_json(unfinished / inner / NOTE, note)
                unfinished.rename(directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    remove_lock(parent / f".{directory.name}.lock")
    return directory / inner


def _note(store: EpisodeStore) -> dict[str, Any]:
    """Returns the facts that the formats have no place for."""
    facts = {"pass_through": list(store.pass_through), "conventions": store.conventions.stated}
    return {name: value for name, value in facts.items() if value}


def import_options(store: EpisodeStore, format: str) -> str:
    """Returns the options with which `muvla data import` reads the written dataset, whatever its sizes.

    Schemas of published datasets have fixed sizes, unless features are named.
    """
    options = ["--schema muvla"]
    if not store.knows_phases:
        state, action = {
            "rlds": ("steps/observation/proprio", "steps/action"),
            "lerobot": ("observation.state", "action"),
        }[format]
        options = [f"--schema mikasa --proprio {state} --action {action}"]
    if format == "lerobot" and store["images"].shape[1] != len(CAMERAS):
        options += [f"--camera {name}" for name in camera_features(store)]
    return " ".join(options)
