"""One running episode, and what came of it.

Legend: H chunk, A action dim, m memory, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.errors import NotAMeasurement

Ticks = Sequence[tuple[int, np.ndarray]]  # step, and the chunk (H, A) that was predicted there, normalised


@dataclass(frozen=True)
class Outcome:
    """What happened in one episode; `error` excludes everything else."""

    seed: int
    info: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    attempts: int = 1  # in this run; 2 where a worker was lost
    seconds: float = 0.0  # since the reset, shared with the other slots
    environment_seconds: float = 0.0
    ticks: Ticks = ()
    identity: int | None = None  # of the target, where that is not its place


@dataclass(eq=False)
class RunningEpisode:
    """One running episode; `seed` None means that no episode is left for this slot."""

    env: WorkerEnv | LocalEnv | None = None
    seed: int | None = None
    lost: str | None = None  # how the first attempt lost its worker
    asked: bool = False  # the environment is at work
    observation: dict[str, np.ndarray] | None = None
    first_image: np.ndarray | None = None  # (1, h, w, 3) of the first camera at the episode's first step
    info: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    is_first: bool = True
    chunk: np.ndarray | None = None  # (H, A) unnormalised
    chunk_age: int = 0
    action: np.ndarray | None = None  # (A,) under way
    first_decision: int | None = None
    first_success: int | None = None
    choice: int = -1
    started: float = 0.0
    environment_seconds: float = 0.0
    tokens: Tensor | None = None  # (m, D) read at the last tick
    compared: bool = False  # what was read at two ticks at which the memory had to do as it is said to
    moved: bool = False
    reads: int = 0
    fired: int = 0  # ticks so far at which the intervention acted
    donor: Any = None  # what the episode is given by others (`muvla.interventions.donors.DonorAssignment`)
    ticks: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def next_action(self) -> np.ndarray:
        """(A,) unnormalised, of its chunk; past the chunk's end the last one (hold_last)."""
        return self.chunk[min(self.chunk_age, len(self.chunk) - 1)]


def executable(action: np.ndarray, slot: RunningEpisode) -> np.ndarray:
    """(A,) in [-1, 1]. Raises NotAMeasurement where the policy gave no numbers."""
    if not np.isfinite(action).all():
        raise NotAMeasurement(
            "action",
            got=f"NaN at step {slot.step} of episode seed {slot.seed}",
            expected="finite numbers",
            remedy="the cell has no result; look at its training log",
        )
    return np.clip(action, -1, 1)
