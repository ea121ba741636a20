"""Policies with an action expert, written as their published trainings save them, and conversion of a training file.

An exported run folder is read by `muvla.checkpoints.prismatic`. Import and export give the same tensors again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from muvla.checkpoints.expert_names import expected_shapes, policy_rules
from muvla.checkpoints.metadata import BUILT_IN_KEY, CAMERAS_KEY, CONFIG, IMAGES_KEY, SIZE_KEY
from muvla.checkpoints.parts import STATISTICS, TOKENIZER
from muvla.checkpoints.prismatic import PrismaticCheckpoint
from muvla.checkpoints.prismatic_config import CONSOLIDATION, EXPERT_KEY, SIZE_OF_VLM
from muvla.checkpoints.release import require_new
from muvla.checkpoints.tensors import write_verified, write_weights
from muvla.checkpoints.training_file import CHECKPOINTS, CONFIG_YAML, pickle_modules
from muvla.config.expert import EXPERTS
from muvla.errors import MuvlaError
from muvla.models.lora import MergedParameters
from muvla.models.policy import Policy
from muvla.utils.io import disk_errors, write_json

EXPERT_OF_RELEASE = {expert: name for name, expert in EXPERTS.items() if name != "tiny"}
CONVERTED_FILES = (CONFIG, CONFIG_YAML, STATISTICS, TOKENIZER)


@dataclass(frozen=True)
class TrainingRun:
    """A policy with everything else that a run folder holds."""

    policy: Policy
    config: dict[str, Any]
    statistics: dict[str, Any]  # by dataset key
    step: str  # name of the training file without its ending
    carried: dict[str, Tensor] = field(default_factory=dict)  # tensors that no policy reads
    tokenizer: bytes | None = None


def load_training_run(directory: PrismaticCheckpoint) -> TrainingRun:
    """Loads the policy and everything else that its folder holds. Raises MuvlaError for what would not load."""
    tokenizer = directory.path / TOKENIZER
    return TrainingRun(
        directory.load_policy(),
        directory.config,
        directory.statistics,
        directory.step,
        directory.carried(),
        tokenizer.read_bytes() if tokenizer.exists() else None,
    )


def make_training_config(policy: Policy, images: str, built_in_tokenizer: bool) -> dict[str, Any]:
    """Returns the configuration of a policy, in the released fields where these exist."""
    size, expert, memory = policy.config.size, policy.config.expert, policy.memory.config
    config: dict[str, Any] = {
        "vla": {"base_vlm": next((vlm for vlm, of_vlm in SIZE_OF_VLM.items() if of_vlm == size), f"muvla-{size.name}")},
        "action_model_type": EXPERT_OF_RELEASE.get(expert, "muvla"),
        "action_dim": policy.interface.action_dim,
        "future_action_window_size": policy.config.chunk - 1,
        "use_ema": False,
        SIZE_KEY: asdict(size),
        EXPERT_KEY: asdict(expert),
        BUILT_IN_KEY: built_in_tokenizer,
        CAMERAS_KEY: policy.interface.cameras,
        IMAGES_KEY: images,
    }
    if memory.kind == "feature_fifo":
        config["past_action_window_size"] = memory.capacity
    if memory.kind == "bank":
        names = {ours: published for published, ours in CONSOLIDATION.items()}
        config |= {
            "mem_length": memory.capacity,
            "retrieval_layers": memory.layers,
            "per_token_size": memory.perceptual_width,
            "use_timestep_pe": memory.time_code != "none",
            "fusion_type": memory.fusion,
            "consolidate_type": names[memory.consolidation],
            "update_fused": memory.stored == "fused",
        }
    return config


def write_training_run(run: TrainingRun, path: Path) -> None:
    """Writes a run folder and reads its headers again. Tensors that `carried` lacks are written as zeros.

    Raises MuvlaError if `path` is not a new folder, or the written folder would not load.
    """
    require_new(path)
    ours, values = MergedParameters(run.policy), {}
    with disk_errors(path), torch.no_grad():
        for rules in policy_rules(run.policy).values():
            for rule in rules:
                saved = rule.save(*(ours[name].detach() for name in rule.ours))
                values |= dict(zip(rule.published, saved, strict=True))
        for name, shape in expected_shapes(run.policy).items():
            if name not in values:
                values[name] = run.carried[name] if name in run.carried else torch.zeros(shape)
        values |= {name: tensor for name, tensor in run.carried.items() if name not in values}
        (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        pickle_modules(values, path / CHECKPOINTS / f"{run.step}.pt")
    if run.tokenizer is not None:
        write_verified(path / TOKENIZER, run.tokenizer)
    write_json(path / STATISTICS, run.statistics)
    write_verified(path / CONFIG_YAML, yaml.safe_dump(json.loads(json.dumps(run.config))).encode())
    write_json(path / CONFIG, run.config)
    if differences := PrismaticCheckpoint(path, run.policy.config.size).differences():
        raise MuvlaError(
            str(path),
            got="; ".join(differences[:8]),
            expected="a run folder that loads",
            remedy="report this as a bug",
        )


def convert(directory: PrismaticCheckpoint, path: Path) -> None:
    """Writes the tensors of a training file as safetensors, which open without reading gigabytes.

    Args:
        directory: the run folder with its training file.
        path: a new folder; it takes the place of the run folder.

    Raises:
        MuvlaError: the file would not load, or `path` is not a new folder.
    """
    directory.require_loadable()
    require_new(path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        write_weights(path, dict(directory.tensors))
        for name in CONVERTED_FILES:
            if (directory.path / name).exists():
                shutil.copyfile(directory.path / name, path / name)
