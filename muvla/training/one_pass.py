"""`--one-pass`: one pass of the language model for all W·B frames of a window, in place of a pass per tick.

This is possible where no read of an earlier tick reaches the model's input: without MEMORY tokens, or with tokens that
carry nothing. The memory is still searched and written tick by tick, on the states of the one pass. The larger batch
changes results by rounding, so the option belongs to provenance and not to a cell's identity.

Legend: W window ticks, B slots, S sequence, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muvla.config import Cell
from muvla.data.stream import Window
from muvla.errors import MuvlaError
from muvla.memory.contract import Clock
from muvla.models.policy import Encoded, Policy


def require_one_pass(cell: Cell, ranks: int = 1) -> None:
    """Raises MuvlaError for a cell whose ticks need a pass each.

    Args:
        cell: the configuration.
        ranks: the processes of the training.
    """
    memory = cell.memory
    for met, got, expected in (
        (ranks == 1, f"{ranks} ranks", "one process"),
        (
            memory.tokens == 0 or not memory.recurs,
            f"memory.kind={memory.kind} with {memory.tokens} MEMORY tokens",
            "a memory that reaches no later tick's model input: none, dummy, or the places fuse and modulate",
        ),
        (
            cell.model.head != "diffusion",
            f"model.head={cell.model.head}",
            "model.head=l1 or expert, which denoise nothing in the language model",
        ),
        (cell.intervention is None, f"intervention={cell.intervention}", "no intervention during training"),
    ):
        if not met:
            raise MuvlaError("--one-pass", got=got, expected=expected, remedy="omit --one-pass for this study")


def run_window(policy: Policy, encoded: Encoded, window: Window) -> Tensor:
    """(W·B, S, D) final states of the language model for every frame of the window, tick by tick."""
    device = encoded.prefix.device
    is_first = window.is_first.flatten().to(device)
    zeros = torch.zeros_like(is_first, dtype=torch.int64)
    step = torch.as_tensor(window.tick, device=device).flatten()
    clock = Clock(step, zeros, is_first, valid=torch.ones_like(is_first))
    read = policy.memory.read(policy.memory.init_state(len(is_first)), policy.observe(encoded), clock)
    return policy.run_model(encoded, read.tokens)
