"""How a training is computed and what it leaves on the disk: never part of what is computed, nor of its identity."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.errors import MuvlaError


@dataclass(frozen=True)
class TrainingOptions:
    """The same numbers under all of them, but for the rounding of a compiled step and, on a GPU, of cached features."""

    checkpoint_gradients: bool = False  # activations are computed twice and not held
    compiled: bool = False
    cached_vision: bool = False  # what frozen towers make of the images is read from the disk
    diagnostics: bool = True  # in the log, beside the loss
    keep: int = 1  # the newest so many checkpoints of a cell

    def __post_init__(self):
        if self.keep < 1:
            raise MuvlaError("--keep-checkpoints", got=self.keep, expected="at least 1", remedy="correct it")


DEFAULT = TrainingOptions()
