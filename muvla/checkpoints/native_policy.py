"""The policy of a training's checkpoint."""

from __future__ import annotations

import torch

from muvla.checkpoints.build import build_policy, hash_start, stored_parameters
from muvla.checkpoints.native import Checkpoint, load_parameters, require_tensors
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.policy import Policy, dimensions_of


def load_policy(checkpoint: Checkpoint) -> Policy:
    """Returns the checkpoint's policy. Raises MuvlaError if the starting checkpoint is missing or has changed."""
    now = hash_start(checkpoint.cell)
    if now != checkpoint.start:
        raise MuvlaError(
            f"start.checkpoint {checkpoint.cell.start.checkpoint}",
            got=f"content {now}",
            expected=f"content {checkpoint.start}, the start of this training",
            remedy="restore that checkpoint, or pass its new path: `muvla train STUDY --set start.checkpoint=…`",
        )
    if checkpoint.start is None:
        _require_same_shapes(checkpoint)
    policy = build_policy(checkpoint.cell, checkpoint.interface)
    load_parameters(stored_parameters(policy, checkpoint.cell), checkpoint.tensors["model"])
    return policy


def _require_same_shapes(checkpoint: Checkpoint) -> None:
    """Raises MuvlaError, before a policy takes memory, for a cell that does not belong to the stored tensors."""
    with torch.device("meta"):
        memory = build_memory(checkpoint.cell.memory, dimensions_of(checkpoint.cell.model, checkpoint.interface))
        policy = Policy(checkpoint.cell.model, memory, checkpoint.interface)
    require_tensors(stored_parameters(policy, checkpoint.cell), checkpoint.tensors["model"])
