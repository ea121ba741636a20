"""One tick of a batch of slots, in the normative order, for training and evaluation alike.

Legend: B slots, m memory width, D width, H chunk, A action dim.

    reset → intervene (before read) → read → intervene (read) → model → write → intervene (after write) → truncate

An intervention is a function on the memory of *one* slot, `(state, context) → state`, where every leaf of `state` has
lost its slot dimension. It is called slot by slot, so that a batch computes what single episodes would, and only where
its schedule fires.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.interventions.base import Context, Intervention, Site
from muvla.memory.base import State, detach, export
from muvla.models.diffusion import Noised, draw_noise
from muvla.models.policy import Encoded, Policy, StepOutput
from muvla.utils.rng import torch_rng


@dataclass(frozen=True)
class Moment:
    """When and where in a batch a tick happens, one entry per slot."""

    tick: list[int]  # step of the slot's episode
    phase: list[Phase]
    key: list[str]  # identity of the slot's episode
    seed: list[int]  # of the slot's episode; keys every random draw
    donor: list[State | None] | None = None  # for each slot, the state that an intervention may transplant
    events: list[dict[str, int]] | None = None  # for each slot, the step of each phase event of its episode


class Recurrence:
    """The carried state of B slots, and the only place where it is read, written, intervened upon and truncated."""

    def __init__(self, policy: Policy, slots: int, intervention: Intervention | None = None):
        self.policy, self.memory, self.slots, self.intervention = policy, policy.memory, slots, intervention
        self.state: State = self.memory.init_state(slots)
        self.history: list[list[State]] = [[] for _ in range(slots)]
        self.writes = [0] * slots  # of each slot's episode, for the check against its environment's steps
        self.fired = [0] * slots  # ticks of each slot's episode at which the intervention acted
        self._since, self._previous = [0] * slots, [-1] * slots  # writes before it first did; step of the last tick

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
            # One that begins in the middle of an episode does not make up for what it has not seen.
            self.fired[slot], self._since[slot], self._previous[slot] = 0, 0, moment.tick[slot] - 1
        state = self.memory.reset(self.state, is_first if self._carries else torch.ones_like(is_first))
        firing = self._firing(moment, active)
        state = self._intervene("before_read", state, moment, firing)
        tokens, removed = self.memory.read(state), None
        if self.intervention is not None and self.intervention.removes:
            removed = self._removed(tokens, moment, firing)
        else:
            tokens = self._intervene("read", {"tokens": tokens}, moment, firing)["tokens"]
        if noised is None:
            output = self.policy.step(encoded, tokens, self._noise(moment, tokens), removed)
        else:
            output = self.policy.predict_noise(encoded, tokens, noised, removed)
        written = self.memory.write(state, output.memory)
        if removed is not None:  # what was not in the sequence is not written
            kept = removed.to(tokens.device)[..., None]
            written = {name: torch.where(kept, state[name], leaf) for name, leaf in written.items()}
        self._carry(self._intervene("after_write", written, moment, firing), active)
        for slot in firing:
            self.fired[slot] += 1
        for slot in range(self.slots):
            if active is None or active[slot]:
                self._previous[slot] = moment.tick[slot]
        return output, tokens

    def _noise(self, moment: Moment, like: Tensor) -> Tensor | None:
        """(B, H, A) that a diffusion head starts from, keyed by each slot's episode and step; None for another head."""
        if self.policy.noisy is None:
            return None
        shape = (self.policy.config.chunk, self.policy.interface.action_dim)
        rows = zip(moment.seed, moment.tick, strict=True)
        return torch.stack([draw_noise(*shape, partial(torch_rng, seed, "denoising", tick)) for seed, tick in rows]).to(
            like
        )

    @property
    def _carries(self) -> bool:
        """Whether what is written is read at the next tick. What does not recur starts anew at every tick, unless an
        intervention puts something there to be read."""
        return self.memory.recurrent or (self.intervention is not None and self.intervention.site == "after_write")

    def truncate(self, where: Tensor | None = None) -> None:
        """No gradient passes this point, in the slots `where` (B,) or in all; values stay."""
        self.state = detach(self.state, where)

    def put(self, slot: int, state: State, history: list[State], previous: int) -> None:
        """A slot into the middle of an episode in which no intervention has acted yet: its state, what its writes left,
        and the step of its last tick."""
        self.state = {name: leaf.clone() for name, leaf in self.state.items()}
        for name, leaf in state.items():
            self.state[name][slot] = leaf
        self.history[slot], self.writes[slot] = list(history), len(history)
        self.fired[slot], self._since[slot], self._previous[slot] = 0, 0, previous

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

    def _firing(self, moment: Moment, active: Tensor | None) -> list[int]:
        """The slots in which the intervention acts now."""
        kind = self.intervention
        if kind is None or self.memory.width == 0:
            return []
        ticking = range(self.slots) if active is None else active.nonzero().flatten().tolist()
        if kind.schedule is not None:
            events = moment.events or [{}] * self.slots
            ticking = [i for i in ticking if kind.fires(moment.tick[i], events[i], self._previous[i])]
        if kind.donor is not None:
            ticking = [i for i in ticking if moment.donor is not None and moment.donor[i] is not None]
        for slot in ticking:
            if self.fired[slot] == 0:
                self._since[slot] = self.writes[slot]
        return list(ticking)

    def _intervene(self, site: Site, state: State, moment: Moment, firing: list[int]) -> State:
        if not firing or self.intervention.site != site:
            return state
        changed = dict(self._applied(state, moment, firing))
        return {
            name: torch.stack([changed[slot][name] if slot in changed else own for slot, own in enumerate(leaf)])
            for name, leaf in state.items()
        }

    def _removed(self, tokens: Tensor, moment: Moment, firing: list[int]) -> Tensor | None:
        """(B, m) bool on the CPU, the tokens that are not in a slot's sequence; None where all are."""
        removed = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        for slot, told in self._applied({"tokens": tokens}, moment, firing):
            removed[slot] = told["tokens"]
        return removed if firing else None

    def _applied(self, state: State, moment: Moment, firing: list[int]) -> Iterator[tuple[int, State]]:
        initial = {name: leaf[0] for name, leaf in self.memory.init_state(1).items()}
        for slot in firing:
            context = Context(
                moment.tick[slot],
                moment.phase[slot],
                moment.key[slot],
                moment.seed[slot],
                self.history[slot],
                moment.donor[slot] if moment.donor else None,
                initial,
                self.intervention.argument,
                self._since[slot],
            )
            yield slot, self.intervention.apply({name: leaf[slot] for name, leaf in state.items()}, context)

    # --- for an exact resume -----------------------------------------------------------------------------------------

    def export(self) -> dict[str, Tensor]:
        """State, histories and counts as named tensors."""
        tensors = {f"state/{name}": leaf for name, leaf in export(self.state).items()}
        for slot, states in enumerate(self.history):
            for i, state in enumerate(states):
                tensors |= {f"history/{slot}/{i:06d}/{name}": leaf for name, leaf in state.items()}
        if self.intervention is not None:
            schedule = list(zip(self.fired, self._since, self._previous, strict=True))
            tensors["schedule"] = torch.tensor(schedule)
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
        # A checkpoint of before schedules is of an intervention that acts at every tick, and asks for none of this.
        schedule = tensors.get("schedule", torch.zeros(self.slots, 3, dtype=torch.int64))
        self.fired, self._since, self._previous = (column.tolist() for column in schedule.T)
        self.history = [[] for _ in range(self.slots)]
        for full, leaf in sorted((n, t) for n, t in tensors.items() if n.startswith("history/")):
            _, slot, i, name = full.split("/")
            states = self.history[int(slot)]
            if int(i) == len(states):
                states.append({})
            states[int(i)][name] = leaf.to(device)
