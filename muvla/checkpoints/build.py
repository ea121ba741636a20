"""From a cell to its policy: drawn from the training seed, or started from a released checkpoint, with or without
adapters."""

from __future__ import annotations

from dataclasses import replace

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from muvla.checkpoints.hub import resolve_checkpoint
from muvla.checkpoints.names import never_published
from muvla.checkpoints.native_start import NativeStart, is_training
from muvla.checkpoints.opening import AnyCheckpoint, open_checkpoint
from muvla.config import Cell
from muvla.config.serialization import difference
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.init import initialise
from muvla.models.lora import TRAINED_IN_FULL, add_adapters
from muvla.models.policy import Interface, Policy, dimensions_of
from muvla.models.prompts import Prompts, built_in_prompts


def open_start(cell: Cell) -> AnyCheckpoint | NativeStart:
    """Opens the checkpoint that the cell starts from. Raises MuvlaError if its size differs or only it has FiLM."""
    path = resolve_checkpoint(cell.start_place)
    directory = NativeStart(path) if is_training(path) else open_checkpoint(path)
    if differing := difference(cell.model.size, replace(directory.size, name=cell.model.size.name)):
        got, expected = (", ".join(f"{name} {pair[i]!r}" for name, pair in differing.items()) for i in (0, 1))
        raise MuvlaError(
            "model.size",
            got=got,
            expected=f"{expected}, the size of {directory.path}",
            remedy="set model.size to the checkpoint's size, or start from another checkpoint",
        )
    if directory.film and not cell.model.film:  # the weights hold the towers from before the training with FiLM
        raise MuvlaError(
            "model.film",
            got=False,
            expected=f"true, because the towers of {directory.path} were trained with FiLM",
            remedy="set model.film to true, or start from another checkpoint",
        )
    return directory


def starts_from_training(cell: Cell) -> bool:
    """True for a cell that starts from a training of this project."""
    return cell.start.checkpoint is not None and isinstance(open_start(cell), NativeStart)


def get_prompts(cell: Cell) -> Prompts:
    """Returns the cell's prompts: the package's, or tokenizer and prompt of the starting checkpoint."""
    return built_in_prompts() if cell.start.checkpoint is None else open_start(cell).prompts()


def hash_start(cell: Cell) -> str | None:
    """Returns the content hash of the starting checkpoint, independent of its path; None without a checkpoint."""
    return None if cell.start.checkpoint is None else open_start(cell).content()


def build_policy(cell: Cell, interface: Interface) -> Policy:
    """Returns a policy with the cell's initial values. Raises MuvlaError for a checkpoint that does not fit the
    cell."""
    memory = build_memory(cell.memory, dimensions_of(cell.model, interface))
    if cell.start.checkpoint is None:
        policy = Policy(cell.model, memory, interface)
        initialise(policy, cell.seed)
        return policy
    directory = open_start(cell)
    with init_empty_weights(include_buffers=False):
        policy = Policy(cell.model, memory, interface, directory.prompts(), directory.constants)
    frozen = torch.bfloat16 if cell.lora.rank and cell.model.precision == "bfloat16" else torch.float32
    loaded = directory.values(
        policy, directory.parts_for(policy, cell.start.parts), lambda name, shape: _dtype(name, shape, frozen)
    )
    drawn = dict(policy.named_parameters()).keys() - loaded.keys()
    empty = {name: torch.zeros(policy.get_parameter(name).shape) for name in drawn}
    policy.load_state_dict(loaded | empty, assign=True, strict=True)
    initialise(policy, cell.seed, only=drawn - never_published(drawn))
    if cell.lora.rank:
        add_adapters(policy, cell.model.size, cell.lora, cell.seed)
    return policy


def _dtype(name: str, shape: torch.Size, frozen: torch.dtype) -> torch.dtype:
    """Returns `frozen` for matrices that stay frozen; norms and biases are added in float32."""
    return torch.float32 if len(shape) < 2 or name.startswith(TRAINED_IN_FULL) else frozen


def stored_parameters(policy: nn.Module, cell: Cell) -> dict[str, Tensor]:
    """Returns the parameters that a checkpoint of this training stores.

    These are the trained parameters, and the frozen ones too unless a released checkpoint holds them.
    """
    everything = cell.start.checkpoint is None or starts_from_training(cell)
    return {name: p for name, p in policy.named_parameters() if everything or p.requires_grad}
