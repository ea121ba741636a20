"""`--cache-vision`: what frozen towers make of every image of a dataset, computed once and read ever after.

    RUNS/vision-cache/<hash of what it depends on>/
      features.bin   a row per frame and camera: (P, F) as the towers give it
      meta.json      what it depends on, and a row's shape and dtype; written last, so that a cache without it is none

A CPU computes the cached rows in batches of as many images as a window has, and training with them is then bit for bit
that without. Other devices promise no such thing: there rows agree to 1e-6, which provenance records.

Legend: W window ticks, B slots, V cameras of an observation, P patches, F the towers' joined width, M = W·B·V.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from muvla.config import Cell
from muvla.config.serialization import content_hash, identity
from muvla.data.store import EpisodeStore
from muvla.data.stream import Window
from muvla.errors import DiskError, MuvlaError
from muvla.models.policy import Policy
from muvla.models.preprocessing import prepare
from muvla.training.trainer import Trainer
from muvla.utils.io import disk_errors, locked, read_json, write_json
from muvla.utils.provenance import processor
from muvla.utils.rng import numpy_rng

FOLDER = "vision-cache"
SAMPLE = 0.01  # of all rows are computed again at every start, in whole batches
TOLERANCE = 1e-6  # of the largest feature, off the CPU


def require_cacheable(cell: Cell, ranks: int = 1) -> None:
    """Raises MuvlaError unless what the towers make of an image is the same throughout the training; and under several
    ranks: a cache belongs to one process, and making it takes longer than the others wait."""
    if ranks > 1:
        raise MuvlaError("--cache-vision", got=f"{ranks} ranks", expected="one", remedy="leave it out")
    for name, got, expected, why in (
        ("model.vision", cell.model.vision, "frozen", "towers that are trained give other features after every update"),
        ("data.augmentation", cell.data.augmentation, "none", "a changed image has other features at every visit"),
        ("model.film", cell.model.film, False, "with it features depend on the prompt, and on what is trained"),
    ):
        if got != expected:
            raise MuvlaError(
                "--cache-vision",
                got=f"{name}={got}",
                expected=f"{name}={expected}: {why}",
                remedy=f"leave --cache-vision out, or set {name}",
            )


def cache_vision(trainer: Trainer, root: Path) -> None:
    """From now on the trainer reads features in place of computing them: those that lie under `root`, made first where
    there are none.

    What was cut, or is belied by a sample, is made anew. Raises MuvlaError for a cell whose features change, a disk
    without room, several ranks, and towers that do not give the same features twice.
    """
    require_cacheable(trainer.cell, trainer.ranks.size)
    policy, stream = trainer.policy, trainer.stream
    budget, cameras = trainer.cell.budget, policy.interface.cameras
    towers = _Towers(policy, stream.store, budget.frames_per_update * cameras, trainer.device)
    folder = root / FOLDER / content_hash(towers.identity())
    with locked(folder / "lock", wait=True):  # of the cells of a sweep one makes it, and the others wait
        for again in (False, True):
            if again or not _is_whole(folder):
                _build(folder, towers)
            cache = VisionCache(folder, stream.store, policy.interface.first_image)
            off, allowed = cache.sampled(towers, trainer.cell.seed)
            if not off > allowed:
                break
    if off > allowed:
        raise MuvlaError(
            str(folder),
            got=f"features that differ by {off:.3g} from what the towers give again",
            expected=f"at most {allowed:.3g}",
            remedy="leave --cache-vision out",
        )
    trainer.prefetcher.features = cache


class _Towers:
    """Images in, features out: in batches of M images, whatever is asked for."""

    def __init__(self, policy: Policy, store: EpisodeStore, batch: int, device: str):
        self.policy, self.store, self.batch, self.device = policy, store, batch, device
        self.cameras = policy.interface.cameras - policy.interface.first_image  # shown, of those that are stored
        self.rows = store.frames * self.cameras

    def identity(self) -> dict[str, Any]:
        """All that features depend on; of the code, a sample at every start is proof enough."""
        vision, digest = self.policy.vision, hashlib.sha256()
        for tower in (vision.dino, vision.siglip):
            for name, value in sorted(tower.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        config = self.policy.config
        cpu = f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"  # another one adds up in another order
        return {
            "towers": digest.hexdigest(),
            "data": self.store.sha256,
            "size": identity(config.size),
            "images": config.images,
            "precision": config.precision,
            "cameras": self.cameras,
            "batch": self.batch,
            "device": cpu if self.device == "cpu" else torch.cuda.get_device_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        }

    @torch.no_grad()
    def __call__(self, rows: np.ndarray) -> Tensor:
        """(n, P, F) of at most M rows, on the CPU."""
        padded = np.resize(rows, self.batch)
        frames = self.store["images"][padded // self.cameras]  # (M, V, h, w, 3); a mixture's column takes rows alone
        images = torch.from_numpy(frames[np.arange(self.batch), padded % self.cameras]).movedim(-1, -3)
        config = self.policy.config
        seen = prepare(images.to(self.device), config.size.image_size, config.images)
        with self.policy.computing(seen.device):
            return self.policy.vision.features(seen[:, None])[: len(rows), 0].cpu()


def _is_whole(folder: Path) -> bool:
    """A cache that was cut is none, and is made anew."""
    file = folder / "features.bin"
    if not (folder / "meta.json").exists() or not file.exists():
        return False
    meta = read_json(folder / "meta.json")
    return file.stat().st_size == meta["rows"] * meta["row_bytes"]


def _build(folder: Path, towers: _Towers) -> None:
    """Other cells may have the file that was there mapped: theirs stays what it was until they close it."""
    file, unfinished = folder / "features.bin", folder / "features.unfinished"
    for stale in (folder / "meta.json", file, unfinished):  # whose room counts as free
        stale.unlink(missing_ok=True)
    first = towers(np.arange(min(towers.rows, towers.batch)))
    row_bytes = first[0].numel() * first.element_size()
    need, free = towers.rows * row_bytes, shutil.disk_usage(folder).free
    if need > free:
        raise DiskError(
            str(folder),
            got=f"{free / 1e9:.1f} GB of room",
            expected=f"{need / 1e9:.1f} GB, {row_bytes / 1e6:.3g} MB per image",
            remedy="leave --cache-vision out, or run with --runs on a larger disk",
        )
    batches = range(0, towers.rows, towers.batch)
    try:
        with disk_errors(folder), unfinished.open("wb") as handle:
            for start in tqdm(batches, desc="vision cache", disable=not sys.stderr.isatty(), dynamic_ncols=True):
                made = towers(np.arange(start, min(start + towers.batch, towers.rows))).contiguous()
                handle.write(made.view(torch.uint8).numpy())
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)  # the room that half a cache takes is of use to others
    shape, dtype = list(first.shape[1:]), str(first.dtype).removeprefix("torch.")
    meta = {"rows": towers.rows, "row_bytes": row_bytes, "shape": shape, "dtype": dtype, "of": towers.identity()}
    write_json(folder / "meta.json", meta)


class VisionCache:
    """The stored features of a dataset; called with a window, it gives the window's."""

    def __init__(self, folder: Path, store: EpisodeStore, first_image: bool):
        self.folder, self.store, self.first_image = folder, store, first_image
        meta = read_json(folder / "meta.json")
        self.cameras: int = meta["of"]["cameras"]
        self._shape, self._dtype = meta["shape"], getattr(torch, meta["dtype"])
        shape = (meta["rows"], meta["row_bytes"])
        self._rows = np.memmap(folder / "features.bin", np.uint8, mode="r", shape=shape)

    def __call__(self, window: Window) -> Tensor:
        """(W·B, V, P, F)."""
        rows = window.frame.reshape(-1, 1) * self.cameras + np.arange(self.cameras)
        if self.first_image:
            rows = np.concatenate([rows, self.store.starts[window.episode].reshape(-1, 1) * self.cameras], axis=1)
        return self.read(rows)

    def read(self, rows: np.ndarray) -> Tensor:
        """(…, P, F)."""
        return torch.from_numpy(self._rows[rows]).view(self._dtype).unflatten(-1, self._shape)

    def sampled(self, towers: _Towers, seed: int) -> tuple[float, float]:
        """Computes a random sample again; returns by how much it differs at most, and by how much it may."""
        rng = numpy_rng(seed, "vision cache", time.time_ns())  # another sample at every start; no result depends on it
        off = scale = 0.0
        for _ in range(math.ceil(SAMPLE * towers.rows / towers.batch)):
            rows = rng.integers(0, towers.rows, towers.batch)
            stored, made = self.read(rows).float(), towers(rows).float()
            differs = (stored - made).abs().max().item()
            off, scale = max(differs, off), max(made.abs().max().item(), scale)
        return off, 0.0 if towers.device == "cpu" else TOLERANCE * scale
