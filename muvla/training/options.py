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
    until: float | None = None  # share of the updates after which the training pauses with a checkpoint; None: never
    weights_at: tuple[int, ...] = ()  # updates after which the weights are stored beside the checkpoints

    def __post_init__(self):
        if self.until is not None and not 0 < self.until < 1:
            raise MuvlaError(
                "until", got=self.until, expected="a share of the updates in (0, 1)", remedy="leave it out for no pause"
            )
        if self.keep < 1:
            raise MuvlaError(
                "--keep-checkpoints", got=self.keep, expected="at least 1", remedy="set --keep-checkpoints to 1 or more"
            )

    def last_update(self, updates: int) -> int:
        """The update at which a training of so many updates ends or pauses; at least 1."""
        return updates if self.until is None else max(1, int(self.until * updates))


DEFAULT = TrainingOptions()
