"""One tick of a batch of slots, in the normative order, for training and evaluation alike.

Legend: B slots, m memory width, D width, H chunk, A action dim.

    reset → intervene (before read) → read → intervene (read) → model → write → intervene (after write) → truncate

An intervention is a function on the memory of *one* slot, `(state, context) → state`, where every leaf of `state` has
lost its slot dimension. It is called slot by slot, so that a batch computes what single episodes would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.memory.base import State, detach, export
from muvla.models.diffusion import Noised, draw
from muvla.models.policy import Encoded, Policy, StepOutput
from muvla.randomness import torch_rng

Site = Literal["before_read", "read", "after_write"]


@dataclass(frozen=True)
class Moment:
    """When and where in a batch a tick happens, one entry per slot."""

    tick: list[int]  # step of the slot's episode
    phase: list[Phase]
    key: list[str]  # identity of the slot's episode
    seed: list[int]  # of the slot's episode; keys every random draw
    donor: list[State | None] | None = None  # for each slot, the state that an intervention may transplant
    events: list[dict[str, int]] | None = None  # for each slot, the step of each phase event of its episode


@dataclass(frozen=True)
class Context:
    """What an intervention may know about the slot that it is applied to."""

    tick: int
    phase: Phase
    key: str
    seed: int
    history: list[State]  # the slot's states after each write of this episode, oldest first, as they were carried on
    donor: State | None = None  # the state to transplant, for interventions that take one

    def generator(self, purpose: str) -> torch.Generator:
        """Keyed by (episode seed, purpose, tick): one intervention never shifts another's draws."""
        return torch_rng(self.seed, "intervention", purpose, self.tick)


@dataclass(frozen=True)
class Intervention:
    """A function on the memory, at a site.

    `effect` is what it must do to the tokens that are read from the second tick of an episode on: they `moves` from
    tick to tick, it `freezes` them (zeros at every tick are frozen), or it `keeps` them as the mechanism has them:
    moving if it recurs, frozen if not. An evaluation that sees the opposite is no measurement.
    """

    name: str
    site: Site
    function: Callable[[State, Context], State]
    effect: Literal["moves", "freezes", "keeps"]


class Recurrence:
    """The carried state of B slots, and the only place where it is read, written, intervened upon and truncated."""

    def __init__(self, policy: Policy, slots: int, intervention: Intervention | None = None):
        self.policy, self.memory, self.slots, self.intervention = policy, policy.memory, slots, intervention
        self.state: State = self.memory.init_state(slots)
        self.history: list[list[State]] = [[] for _ in range(slots)]
        self.writes = [0] * slots  # of each slot's episode, for the check against its environment's steps

    def tick(
        self,
        encoded: Encoded,
        is_first: Tensor,
        moment: Moment,
        active: Tensor | None = None,
        noised: Noised | None = None,
    ) -> tuple[StepOutput, Tensor]:
        """The step's output and the tokens (B, m, D) that it read; in the training of a diffusion head `noised` is what
        it is to find the noise in.

        `is_first` (B,) marks slots that start an episode. Where `active` (B,) is False the slot has no tick now: it
        computes along, because the batch shape never changes, and keeps its memory.
        """
        for slot in is_first.nonzero().flatten().tolist():
            self.history[slot], self.writes[slot] = [], 0
        state = self.memory.reset(self.state, is_first if self._carries else torch.ones_like(is_first))
        state = self._intervene("before_read", state, moment)
        tokens = self.memory.read(state)
        tokens = self._intervene("read", {"tokens": tokens}, moment)["tokens"]
        if noised is None:
            output = self.policy.step(encoded, tokens, self._noise(moment, tokens))
        else:
            output = self.policy.predict_noise(encoded, tokens, noised)
        state = self._intervene("after_write", self.memory.write(state, output.memory), moment)
        self._carry(state, active)
        return output, tokens

    def _noise(self, moment: Moment, like: Tensor) -> Tensor | None:
        """(B, H, A) that a diffusion head starts from, keyed by each slot's episode and step; None for another head."""
        if self.policy.noisy is None:
            return None
        shape = (self.policy.config.chunk, self.policy.interface.action_dim)
        rows = zip(moment.seed, moment.tick, strict=True)
        return torch.stack([draw(*shape, partial(torch_rng, seed, "denoising", tick)) for seed, tick in rows]).to(like)

    @property
    def _carries(self) -> bool:
        """Whether what is written is read at the next tick. What does not recur starts anew at every tick, unless an
        intervention puts something there to be read."""
        return self.memory.recurrent or (self.intervention is not None and self.intervention.site == "after_write")

    def truncate(self, where: Tensor | None = None) -> None:
        """No gradient passes this point, in the slots `where` (B,) or in all; values stay."""
        self.state = detach(self.state, where)

    def _carry(self, state: State, active: Tensor | None) -> None:
        if active is not None:
            state = {k: torch.where(active.view(-1, 1, 1), leaf, self.state[k]) for k, leaf in state.items()}
        self.state = state
        kept = export(state) if self.intervention is not None else {}
        for slot in range(self.slots):
            if active is None or active[slot]:
                self.writes[slot] += 1
                if kept:
                    self.history[slot].append({name: leaf[slot] for name, leaf in kept.items()})

    def _intervene(self, site: Site, state: State, moment: Moment) -> State:
        if self.intervention is None or self.intervention.site != site or self.memory.width == 0:
            return state
        changed = []
        for slot in range(self.slots):
            own = {name: leaf[slot] for name, leaf in state.items()}
            context = Context(
                moment.tick[slot],
                moment.phase[slot],
                moment.key[slot],
                moment.seed[slot],
                self.history[slot],
                moment.donor[slot] if moment.donor else None,
            )
            changed.append(self.intervention.function(own, context))
        return {name: torch.stack([leaves[name] for leaves in changed]) for name in state}

    # --- for an exact resume -----------------------------------------------------------------------------------------

    def export(self) -> dict[str, Tensor]:
        """State, histories and counts as named tensors."""
        tensors = {f"state/{name}": leaf for name, leaf in export(self.state).items()}
        for slot, states in enumerate(self.history):
            for i, state in enumerate(states):
                tensors |= {f"history/{slot}/{i:06d}/{name}": leaf for name, leaf in state.items()}
        return tensors | {"writes": torch.tensor(self.writes)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Raises MuvlaError for tensors of another shape or number of slots."""
        device = next(self.policy.parameters()).device
        leaves = {name.removeprefix("state/"): t for name, t in tensors.items() if name.startswith("state/")}
        self.state = {name: leaf.to(device) for name, leaf in self.memory.load(leaves).items()}
        self.writes = tensors["writes"].tolist()
        if len(self.writes) != self.slots:
            raise MuvlaError(
                "memory state", got=f"{len(self.writes)} slots", expected=f"{self.slots}", remedy="keep the budget"
            )
        self.history = [[] for _ in range(self.slots)]
        for full, leaf in sorted((n, t) for n, t in tensors.items() if n.startswith("history/")):
            _, slot, i, name = full.split("/")
            states = self.history[int(slot)]
            if int(i) == len(states):
                states.append({})
            states[int(i)][name] = leaf.to(device)
