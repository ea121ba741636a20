"""A running episode and its outcome.

Legend: V cameras, h×w image, H chunk, A action dim, m memory, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.errors import NotAMeasurement
from muvla.interventions.donors.assignment import DonorAssignment
from muvla.memory.contract import State

Chunks = Sequence[tuple[int, np.ndarray]]  # (step, chunk (H, A) predicted there, normalised) of every tick


@dataclass(frozen=True)
class Outcome:
    """The result of one episode. Where `error` is set, `info` is empty."""

    seed: int
    info: dict[str, Any] = field(default_factory=dict)  # the outcome fields of its `EpisodeRow`
    error: str | None = None
    attempts: int = 1  # in this run; 2 after the loss of a worker
    seconds: float = 0.0  # wall time since the reset, shared with the other slots
    environment_seconds: float = 0.0
    chunks: Chunks = ()
    identity: int | None = None  # of the target, in tasks where identity and place differ


@dataclass(eq=False)
class RunningEpisode:
    """The episode in one slot. `seed` is None when no episode is left for the slot.

    A new episode is a new object in the same slot; `index` says which slot.
    """

    index: int
    env: WorkerEnv | LocalEnv | None = None
    seed: int | None = None
    lost_worker: str | None = None  # error of the first attempt, if the attempt lost its worker or its policy server
    failure: str | None = None  # why the actor could not act; the rollout tries the episode once more
    is_waiting: bool = False  # the environment works on a reset or a step
    observation: dict[str, np.ndarray] | None = None
    first_images: np.ndarray | None = None  # (V, h, w, 3), at the first step
    info: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    is_first: bool = True  # no tick so far
    chunk: np.ndarray | None = None  # (H, A) unnormalised
    chunk_age: int = 0  # steps executed since the chunk was taken
    action: np.ndarray | None = None  # (A,) of the step that the environment works on
    first_decision: int | None = None
    first_success: int | None = None
    choice: int = -1
    started: float = 0.0
    environment_seconds: float = 0.0
    tokens: Tensor | None = None  # (m, D) read at the last tick
    watched: State = field(default_factory=dict)  # what the last tick read (`muvla.recurrence.watch`)
    reads: int = 0  # ticks so far
    fired: int = 0  # ticks so far at which the intervention acted
    # `compared`: two reads were compared whose difference the mechanism or the intervention prescribes.
    compared: bool = False
    moved: bool = False  # two such reads differed
    donor: DonorAssignment | None = None
    chunks: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def next_action(self) -> np.ndarray:
        """(A,) of the chunk, unnormalised. Past the chunk's end, the last action (`hold_last`)."""
        return self.chunk[min(self.chunk_age, len(self.chunk) - 1)]


def executable(action: np.ndarray, episode: RunningEpisode) -> np.ndarray:
    """Return the action (A,) clipped to [-1, 1]. Raises NotAMeasurement for NaN and infinity."""
    if not np.isfinite(action).all():
        raise NotAMeasurement(
            "action",
            got=f"NaN at step {episode.step} of episode seed {episode.seed}",
            expected="finite numbers",
            remedy="the cell has no result: read its training log",
        )
    return np.clip(action, -1, 1)
