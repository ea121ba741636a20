"""From a cell to its policy: drawn from the training seed, or started from a released checkpoint, with adapters or
without."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from muvla.checkpoints.hub import checkpoint_folder
from muvla.checkpoints.names import never_published
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.config import Cell
from muvla.config.serialization import difference
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.init import initialise
from muvla.models.lora import TRAINED_IN_FULL, add_adapters
from muvla.models.policy import Interface, Policy
from muvla.models.prompts import Prompts, built_in_prompts


def start_directory(cell: Cell) -> ReleasedCheckpoint:
    """Of a cell that starts from a checkpoint. Raises MuvlaError if that is of another size, or has FiLM alone."""
    directory = ReleasedCheckpoint(checkpoint_folder(cell.start.checkpoint), None)
    if differing := difference(cell.model.size, directory.size):
        got, expected = (", ".join(f"{name} {pair[i]!r}" for name, pair in differing.items()) for i in (0, 1))
        raise MuvlaError(
            "model.size",
            got=got,
            expected=f"{expected}, as {directory.path} has it",
            remedy="set model.size to the checkpoint's, or start from another one",
        )
    if directory.film and not cell.model.film:  # the weights beside them hold the towers of before that training
        raise MuvlaError(
            "model.film",
            got=False,
            expected=f"true, as {directory.path} has it",
            remedy="set model.film: its towers were trained with FiLM; or start from another checkpoint",
        )
    return directory


def prompts_of(cell: Cell) -> Prompts:
    """A checkpoint brings its tokenizer and the prompt that it was trained with."""
    return built_in_prompts() if cell.start.checkpoint is None else start_directory(cell).prompts()


def start_content(cell: Cell) -> str | None:
    """Hash of what the cell starts from, wherever that lies; None for one that draws everything."""
    return None if cell.start.checkpoint is None else start_directory(cell).content()


def build_policy(cell: Cell, interface: Interface) -> Policy:
    """A policy with the initial values of the cell. Raises MuvlaError for a checkpoint that does not fit it."""
    memory = build_memory(cell.memory, cell.model.size.width)
    if cell.start.checkpoint is None:
        policy = Policy(cell.model, memory, interface)
        initialise(policy, cell.seed)
        return policy
    directory = start_directory(cell)
    with init_empty_weights(include_buffers=False):
        policy = Policy(cell.model, memory, interface, directory.prompts())
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
    """Only matrices that stay as they are may be kept in half precision; norms and biases are added to float32."""
    return torch.float32 if len(shape) < 2 or name.startswith(TRAINED_IN_FULL) else frozen


def stored_parameters(policy: nn.Module, cell: Cell) -> dict[str, Tensor]:
    """What a checkpoint of this training holds: what is trained; and the rest too, unless another checkpoint has it."""
    everything = cell.start.checkpoint is None
    return {name: p for name, p in policy.named_parameters() if everything or p.requires_grad}
