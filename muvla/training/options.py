"""Options of a training that do not belong to its identity: how it is computed and what it leaves on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.errors import MuvlaError


@dataclass(frozen=True)
class TrainingOptions:
    """Every combination trains the same policy.

    Three options change the rounding: a compiled step, cached features on a GPU, and one pass per window.
    """

    checkpoint_gradients: bool = False  # recompute activations in the backward pass instead of holding them
    compiled: bool = False
    cached_vision: bool = False  # read the features of frozen towers from the disk
    one_pass: bool = False  # one pass of the language model per window, where no read of a memory needs another
    diagnostics: bool = True  # measurements in the log, beside the loss
    keep: int = 1  # newest checkpoints that stay

    def __post_init__(self):
        if self.keep < 1:
            raise MuvlaError(
                "--keep-checkpoints", got=self.keep, expected="at least 1", remedy="set --keep-checkpoints to 1 or more"
            )


DEFAULT = TrainingOptions()
