"""The facts that an intervention may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from muvla.envs.phases import Phase
from muvla.interventions.selection import WHOLE, Selection
from muvla.memory.contract import State
from muvla.utils.rng import torch_rng


@dataclass(frozen=True)
class Context:
    """The facts that an intervention may use about the slot that it acts on."""

    tick: int
    phase: Phase
    key: str
    seed: int
    history: list[State]  # the slot's states after each write of this episode, oldest first, as they were carried on
    donor: State | None = None  # the state to transplant, for interventions that take one
    initial: State = field(default_factory=dict)  # the state at an episode's start
    argument: Any = None  # of the intervention
    since: int = 0  # index in `history` of the write at the tick at which it first fired in this episode
    selection: Selection = WHOLE  # what `[a:b]` counts in this state

    def generator(self, purpose: str, per_tick: bool = True) -> torch.Generator:
        """Keyed by (episode seed, purpose, tick): one intervention never shifts another's draws."""
        return torch_rng(self.seed, "intervention", purpose, *([self.tick] * per_tick))
