"""`--cache-vision`: the features of frozen towers for every image of a dataset, computed once and read afterwards.

    RUNS/vision-cache/<hash of everything that features depend on>/
      features.bin   a row per frame and camera: (P, F) as the towers give it
      meta.json      the hashed content, and a row's shape and dtype; written last, so a cache without it is incomplete

A CPU computes the cached rows in batches of as many images as a window has. Training with the cache then equals
training without, bit for bit. Other devices give no such guarantee: there rows agree to 1e-6, and provenance records
the cache.

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
from muvla.memory.registry import get_mechanism
from muvla.models.policy import Policy
from muvla.models.preprocessing import prepare
from muvla.training.trainer import Trainer
from muvla.utils.io import disk_errors, read_json, write_json
from muvla.utils.locks import locked
from muvla.utils.provenance import processor
from muvla.utils.rng import numpy_rng

FOLDER = "vision-cache"
SAMPLE = 0.01  # share of the rows that every start computes again, in whole batches
TOLERANCE = 1e-6  # relative to the largest feature, on devices other than a CPU


def require_cacheable(cell: Cell, ranks: int = 1) -> None:
    """Raises MuvlaError if the features change during the training, or if several ranks train.

    A cache belongs to one process, and building it would take longer than the other ranks wait.
    """
    if ranks > 1:
        raise MuvlaError("--cache-vision", got=f"{ranks} ranks", expected="one process", remedy="omit --cache-vision")
    pixels = "pixels" in get_mechanism(cell.memory.kind).observed_by(cell.memory)
    for name, got, expected, reason in (
        ("memory.recomputed", pixels, False, "a store of pixels needs the towers at every tick"),
        ("model.vision", cell.model.vision, "frozen", "the features of trained towers change with every update"),
        ("data.augmentation", cell.data.augmentation, "none", "augmentation changes the features at every visit"),
        ("model.film", cell.model.film, False, "with FiLM features depend on the prompt and on trained layers"),
    ):
        if got != expected:
            raise MuvlaError(
                "--cache-vision",
                got=f"{name}={got}",
                expected=f"{name}={expected}: {reason}",
                remedy=f"omit --cache-vision, or set {name}",
            )


def cache_vision(trainer: Trainer, root: Path) -> None:
    """Makes the trainer read cached features under `root` instead of computing them; builds the cache if necessary.

    An incomplete cache, or a cache that a sample contradicts, is built anew.

    Raises:
        MuvlaError: the cell's features change, several ranks train, the disk has no room, or the towers do not give
            the same features twice.
    """
    require_cacheable(trainer.cell, trainer.ranks.size)
    policy, stream = trainer.policy, trainer.stream
    budget, cameras = trainer.cell.budget, policy.interface.cameras
    towers = _Towers(policy, stream.store, budget.frames_per_update * cameras, trainer.device)
    folder = root / FOLDER / content_hash(towers.identity())
    with locked(folder / "lock", wait=True):  # one cell of a sweep builds the cache, and the others wait
        for rebuild in (False, True):
            if rebuild or not _is_whole(folder):
                _build(folder, towers)
            cache = VisionCache(folder, stream.store, policy.interface.first_image)
            deviation, allowed = cache.compare_sample(towers, trainer.cell.seed)
            if not deviation > allowed:
                break
    if deviation > allowed:
        raise MuvlaError(
            "--cache-vision",
            got=f"features in {folder} that differ by {deviation:.3g} from the towers' features",
            expected=f"a difference of at most {allowed:.3g}",
            remedy="omit --cache-vision",
        )
    trainer.prefetcher.features = cache


class _Towers:
    """Computes features in batches of M images, whatever the number of requested rows."""

    def __init__(self, policy: Policy, store: EpisodeStore, batch: int, device: str):
        self.policy, self.store, self.batch, self.device = policy, store, batch, device
        self.cameras = np.array(policy.interface.seen)  # numbers of the stored cameras that the policy sees
        self.rows = store.frames * len(self.cameras)

    def identity(self) -> dict[str, Any]:
        """Returns everything that features depend on, except the code: every start compares a sample."""
        vision, digest = self.policy.vision, hashlib.sha256()
        for tower in (vision.dino, vision.siglip):
            for name, value in sorted(tower.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        config = self.policy.config
        cpu = f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"  # another CPU sums in another order
        return {
            "towers": digest.hexdigest(),
            "data": self.store.sha256,
            "size": identity(config.size),
            "images": config.images,
            "precision": config.precision,
            "cameras": len(self.cameras) if self.policy.interface.camera_numbers is None else self.cameras.tolist(),
            "batch": self.batch,
            "device": cpu if self.device == "cpu" else torch.cuda.get_device_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        }

    @torch.no_grad()
    def __call__(self, rows: np.ndarray) -> Tensor:
        """Returns (n, P, F) features of n ≤ M rows, on the CPU."""
        padded = np.resize(rows, self.batch)
        frame, camera = np.divmod(padded, len(self.cameras))
        frames = self.store["images"][frame]  # (M, V, h, w, 3); a mixture takes row indices alone
        images = torch.from_numpy(frames[np.arange(self.batch), self.cameras[camera]]).movedim(-1, -3)
        config = self.policy.config
        seen = prepare(images.to(self.device), config.size.image_size, config.images)
        with self.policy.computing(seen.device):
            return self.policy.vision.features(seen[:, None])[: len(rows), 0].cpu()


def _is_whole(folder: Path) -> bool:
    """Returns False for a cache that is missing or incomplete."""
    file = folder / "features.bin"
    if not (folder / "meta.json").exists() or not file.exists():
        return False
    meta = read_json(folder / "meta.json")
    return file.stat().st_size == meta["rows"] * meta["row_bytes"]


def _build(folder: Path, towers: _Towers) -> None:
    """Computes the features of all rows.

    Other cells may have the previous file mapped; they keep its content until they close it.
    """
    file, unfinished = folder / "features.bin", folder / "features.unfinished"
    for stale in (folder / "meta.json", file, unfinished):  # their room counts as free
        stale.unlink(missing_ok=True)
    first = towers(np.arange(min(towers.rows, towers.batch)))
    row_bytes = first[0].numel() * first.element_size()
    need, free = towers.rows * row_bytes, shutil.disk_usage(folder).free
    if need > free:
        raise DiskError(
            str(folder),
            got=f"{free / 1e9:.1f} GB free",
            expected=f"{need / 1e9:.1f} GB, {row_bytes / 1e6:.3g} MB per image",
            remedy="omit --cache-vision, or pass --runs with a folder on a larger disk",
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
        unfinished.unlink(missing_ok=True)  # frees the room of an incomplete cache
    shape, dtype = list(first.shape[1:]), str(first.dtype).removeprefix("torch.")
    meta = {"rows": towers.rows, "row_bytes": row_bytes, "shape": shape, "dtype": dtype, "of": towers.identity()}
    write_json(folder / "meta.json", meta)


class VisionCache:
    """The stored features of a dataset; called with a window, it returns the window's features."""

    def __init__(self, folder: Path, store: EpisodeStore, first_image: bool):
        self.folder, self.store, self.first_image = folder, store, first_image
        meta = read_json(folder / "meta.json")
        chosen = meta["of"]["cameras"]
        self.cameras = chosen if isinstance(chosen, int) else len(chosen)
        self._shape, self._dtype = meta["shape"], getattr(torch, meta["dtype"])
        shape = (meta["rows"], meta["row_bytes"])
        self._rows = np.memmap(folder / "features.bin", np.uint8, mode="r", shape=shape)

    def __call__(self, window: Window) -> Tensor:
        """Returns (W·B, V, P, F)."""
        rows = window.frame.reshape(-1, 1) * self.cameras + np.arange(self.cameras)
        if self.first_image:
            rows = np.concatenate([rows, self.store.starts[window.episode].reshape(-1, 1) * self.cameras], axis=1)
        return self.read(rows)

    def read(self, rows: np.ndarray) -> Tensor:
        """Returns (…, P, F) of the rows."""
        return torch.from_numpy(self._rows[rows]).view(self._dtype).unflatten(-1, self._shape)

    def compare_sample(self, towers: _Towers, seed: int) -> tuple[float, float]:
        """Computes a random sample again; returns the largest deviation and the allowed deviation."""
        # Every start draws another sample; no result depends on the sample.
        rng = numpy_rng(seed, "vision cache", time.time_ns())
        deviation = scale = 0.0
        for _ in range(math.ceil(SAMPLE * towers.rows / towers.batch)):
            rows = rng.integers(0, towers.rows, towers.batch)
            stored, made = self.read(rows).float(), towers(rows).float()
            largest = (stored - made).abs().max().item()
            deviation, scale = max(largest, deviation), max(made.abs().max().item(), scale)
        return deviation, 0.0 if towers.device == "cpu" else TOLERANCE * scale
