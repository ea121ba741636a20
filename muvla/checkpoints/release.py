"""A policy with everything else that a released directory holds: loading it from a directory, and writing one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muvla.checkpoints.film_weights import VisionFile, make_vision_tensors
from muvla.checkpoints.layout import DTYPES, get_rules, unread_shapes
from muvla.checkpoints.metadata import CONFIG, MEMORY_META
from muvla.checkpoints.names import Rule, Shapes
from muvla.checkpoints.parts import PREFIXES, STATISTICS, file_name
from muvla.checkpoints.released import LISTED, ReleasedCheckpoint
from muvla.checkpoints.tensors import pickle_tensors, write_verified, write_weights
from muvla.config import ReleasedPrecision
from muvla.errors import MuvlaError
from muvla.models.lora import MergedParameters
from muvla.models.policy import Policy
from muvla.utils.io import disk_errors, read_json, write_json


@dataclass(frozen=True)
class Release:
    """A policy and its directory's other content; writing a loaded release gives the same directory again."""

    policy: Policy
    carried: dict[str, Tensor]  # tensors of the weights that no policy reads
    config: dict[str, Any]  # config.json
    statistics: dict[str, Any]  # by dataset key
    memory_meta: dict[str, Any] | None = None
    step: str = "latest"
    upstream: dict[str, bytes] = field(default_factory=dict)  # files for upstream's code, the tokenizer's among them
    vision: VisionFile | None = None  # with FiLM: the file that the towers and FiLM were read from


def load_release(
    checkpoint: ReleasedCheckpoint, precision: ReleasedPrecision = "float32", device: str = "cpu"
) -> Release:
    """Loads the policy and everything else that its directory holds. Raises MuvlaError for what would not load."""
    policy = checkpoint.load_policy(precision, device)
    return Release(
        policy,
        checkpoint.carried(checkpoint.film),
        checkpoint.config,
        checkpoint.statistics,
        read_json(checkpoint.path / MEMORY_META) if checkpoint.memory else None,
        checkpoint.step,
        checkpoint.upstream_files(),
        checkpoint.parts.get("vision"),
    )


def write_release(release: Release, path: Path) -> None:
    """Writes a directory in the published names and dtypes, and reads every file again to check it.

    Tensors that no policy reads and that `carried` lacks are written as zeros.

    Raises:
        MuvlaError: `path` is not a new folder, or the written directory would not load.
    """
    require_new(path)
    policy, size, film = release.policy, release.policy.config.size, release.policy.config.film
    ours = MergedParameters(policy)
    unread = unread_shapes(ours, size, film)
    with disk_errors(path), torch.no_grad():
        path.mkdir(parents=True, exist_ok=True)
        for part, rules in get_rules(policy, film).items():
            _write_part(release, path, part, _published_values(release, part, rules, ours, unread.get(part, {})))
    for name, content in release.upstream.items():
        with disk_errors(path):
            (path / name).parent.mkdir(exist_ok=True)
        write_verified(path / name, content)
    write_json(path / STATISTICS, release.statistics)
    if release.memory_meta is not None:
        write_json(path / MEMORY_META, release.memory_meta)
    write_json(path / CONFIG, release.config)  # last: a folder without config.json is no release
    if differences := ReleasedCheckpoint(path, size).differences():
        raise MuvlaError(
            str(path),
            got="; ".join(differences[:LISTED]),
            expected="a directory that loads",
            remedy="make statistics and metadata of the release fit its policy",
        )


def _published_values(
    release: Release, part: str, rules: list[Rule], ours: MergedParameters, unread: Shapes
) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for rule in rules:
        saved = rule.save(*(ours[name].detach() for name in rule.ours))
        values |= dict(zip(rule.published, saved, strict=True))
    carried = release.vision if part == "vision" and release.vision is not None else release.carried
    for name, shape in unread.items():
        values[name] = carried[name] if name in carried else torch.zeros(shape)
    return values


def _write_part(release: Release, path: Path, part: str, values: dict[str, Tensor]) -> None:
    if part == "vision":
        tensors = make_vision_tensors(values, release.vision)
    else:
        tensors = {name: value.to(DTYPES[part]) for name, value in values.items()}
    if part == "weights":
        write_weights(path, tensors)
    else:
        content = pickle_tensors({PREFIXES.get(part, "") + name: tensor for name, tensor in tensors.items()})
        write_verified(path / file_name(part, release.step), content)


def require_new(path: Path) -> None:
    """Raises MuvlaError if `path` is a file or a folder with files."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        got = "a folder with files" if path.is_dir() else "a file"
        raise MuvlaError(str(path), got=got, expected="a new folder", remedy="choose a folder that does not exist")
