"""One tick of a batch of slots, in the normative order, for training and evaluation alike.

Legend: B slots, m MEMORY tokens, D width, H chunk, A action dim.

    reset → intervene (before read) → read → intervene (read) → model → retrieve → intervene (read) → inject → head
    → write → intervene (after write) → truncate
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from muvla.errors import MuvlaError
from muvla.interventions.base import Intervention, Site
from muvla.memory.base import detach, export, where_slot
from muvla.memory.contract import Clock, Read, Retrieved, State, Taps
from muvla.models.diffusion import Noised, draw_noises
from muvla.models.policy import Encoded, Policy, Retrieve, StepOutput
from muvla.recurrence.intervener import Intervener
from muvla.recurrence.moment import Moment
from muvla.recurrence.slot_clock import SlotClock
from muvla.utils.rng import torch_rng


class Recurrence:
    """The carried state of B slots, and the only place where it is read, written, intervened upon and truncated."""

    def __init__(self, policy: Policy, slots: int, intervention: Intervention | None = None):
        self.policy, self.memory, self.slots, self.intervention = policy, policy.memory, slots, intervention
        self.state: State = self.memory.init_state(slots)
        # What the last tick read, after interventions: the state, the MEMORY tokens and the retrieved content.
        self.read_state, self.read, self.retrieved = self.state, None, None
        self.clocks = [SlotClock() for _ in range(slots)]
        self.intervener = None if intervention is None else Intervener(intervention, self.memory, self.clocks)

    @property
    def writes(self) -> list[int]:
        """Writes of each slot's episode so far."""
        return [clock.writes for clock in self.clocks]

    @property
    def fired(self) -> list[int]:
        """Ticks of each slot's episode at which the intervention acted."""
        return [clock.fired for clock in self.clocks]

    def tick(
        self,
        encoded: Encoded,
        is_first: Tensor,
        moment: Moment,
        active: Tensor | None = None,
        noised: Noised | None = None,
        states: Tensor | None = None,
    ) -> tuple[StepOutput, Tensor]:
        """One tick of all slots.

        Args:
            encoded: observations of B slots.
            is_first: (B,) bool, slots that start an episode.
            moment: steps, phases, episodes, donors and events of the slots.
            active: (B,) bool; None is all. A slot that is not active has no tick now: it computes along, because the
                batch shape never changes, and keeps its memory.
            noised: noisy actions, in the training of a diffusion head.
            states: (B, S, D) of a pass of the language model that has been made already.

        Returns:
            The step's output, and the MEMORY tokens (B, m, D) that it read.
        """
        for slot in is_first.nonzero().flatten().tolist():
            self.clocks[slot].start(moment.tick[slot])
        clock = self._clock(is_first, moment, active)
        firing = [] if self.intervener is None else self.intervener.firing(moment, active)
        state = self.memory.reset(self.state, is_first if self._carries else torch.ones_like(is_first))
        state = self.read_state = self._intervene("before_read", state, moment, firing)
        read = self.memory.read(state, self.policy.observe(encoded), clock)
        if firing:
            read = self.intervener.change_read(read, moment, firing)

        def retrieve(taps: Taps) -> Retrieved | None:
            retrieved = self.memory.retrieve(state, taps, clock)
            if retrieved is None or not firing:
                return retrieved
            return self.intervener.change_retrieved(retrieved, moment, firing)

        output = self._step(encoded, read, moment, noised, retrieve, states)
        self.read, self.retrieved = read, output.retrieved
        written = self.memory.write(state, output.taps, clock, read, output.retrieved)
        self._carry(self._intervene("after_write", written, moment, firing), active)
        for slot in firing:
            self.clocks[slot].fired += 1
        for slot, slot_clock in enumerate(self.clocks):
            if active is None or active[slot]:
                slot_clock.previous = moment.tick[slot]
        return output, read.tokens

    def _clock(self, is_first: Tensor, moment: Moment, active: Tensor | None) -> Clock:
        device = is_first.device
        return Clock(
            step=torch.tensor(moment.tick if moment.time is None else moment.time, device=device),
            query=torch.tensor(self.writes, device=device),
            is_first=is_first,
            valid=torch.ones_like(is_first) if active is None else active,
        )

    def _step(
        self,
        encoded: Encoded,
        read: Read,
        moment: Moment,
        noised: Noised | None,
        retrieve: Retrieve,
        states: Tensor | None,
    ) -> StepOutput:
        removed = None if read.present is None else ~read.present
        if noised is None:
            return self.policy.step(encoded, read.tokens, self._noise(moment, read.tokens), removed, retrieve, states)
        return self.policy.predict_noise(encoded, read.tokens, noised, removed, retrieve, states)

    def _noise(self, moment: Moment, like: Tensor) -> Tensor | None:
        """The noise of a head that denoises, keyed by each slot's episode and step; None for another head.

        A diffusion head gets (B, H, A), an action expert (draws, B, H, A).
        """
        policy = self.policy
        if not policy.noise_draws:
            return None
        shape = (policy.noise_draws, policy.config.chunk, policy.interface.action_dim)
        rows = zip(moment.seed, moment.tick, strict=True)
        noises = [draw_noises(*shape, partial(torch_rng, seed, "denoising", tick)) for seed, tick in rows]
        noise = torch.stack(noises, dim=1).to(like)
        return noise if policy.noisy is None else noise[0]

    @property
    def _carries(self) -> bool:
        """True where the next tick reads what this tick wrote. A mechanism that does not recur starts anew at every
        tick, unless an intervention changes what was written."""
        return self.memory.recurs or (self.intervention is not None and self.intervention.site == "after_write")

    def _intervene(self, site: Site, state: State, moment: Moment, firing: list[int]) -> State:
        return self.intervener.change_state(site, state, moment, firing) if firing else state

    def _carry(self, state: State, active: Tensor | None) -> None:
        if active is not None:
            state = {name: where_slot(active, leaf, self.state[name]) for name, leaf in state.items()}
        self.state = state
        kept = export(state) if self.intervention is not None else {}
        for slot, clock in enumerate(self.clocks):
            if active is None or active[slot]:
                clock.writes += 1
                if kept:
                    clock.history.append({name: leaf[slot] for name, leaf in kept.items()})

    def truncate(self, where: Tensor | None = None) -> None:
        """Cuts the graph here, in the slots `where` (B,) or in all. Values stay."""
        self.state = detach(self.state, where)

    def restore_slot(self, slot: int, state: State, history: list[State], previous: int) -> None:
        """Sets a slot into the middle of an episode in which no intervention has acted yet.

        Args:
            slot: index of the slot.
            state: leaves of this slot, without the slot dimension.
            history: the state after each write of the episode so far.
            previous: environment step of the episode's last tick.
        """
        self.state = {name: leaf.clone() for name, leaf in self.state.items()}
        for name, leaf in state.items():
            self.state[name][slot] = leaf
        clock = self.clocks[slot]
        clock.start(previous + 1)
        clock.writes, clock.history = len(history), list(history)

    # --- for an exact resume -----------------------------------------------------------------------------------------

    def export(self) -> dict[str, Tensor]:
        """State, histories and counts as named tensors."""
        tensors = {f"state/{name}": leaf for name, leaf in export(self.state).items()}
        for slot, clock in enumerate(self.clocks):
            for i, state in enumerate(clock.history):
                tensors |= {f"history/{slot}/{i:06d}/{name}": leaf for name, leaf in state.items()}
        if self.intervention is not None:
            tensors["schedule"] = torch.tensor([(c.fired, c.since, c.previous) for c in self.clocks])
        return tensors | {"writes": torch.tensor(self.writes)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Raises MuvlaError for tensors of another shape or number of slots."""
        device = next(self.policy.parameters()).device
        leaves = {name.removeprefix("state/"): t for name, t in tensors.items() if name.startswith("state/")}
        self.state = {name: leaf.to(device) for name, leaf in self.memory.load(leaves).items()}
        writes = tensors["writes"].tolist()
        if len(writes) != self.slots:
            raise MuvlaError(
                "memory state", got=f"{len(writes)} slots", expected=f"{self.slots}", remedy="keep the budget"
            )
        # A checkpoint older than schedules is of an intervention that acts at every tick, and needs none of this.
        schedule = tensors.get("schedule", torch.zeros(self.slots, 3, dtype=torch.int64)).tolist()
        for clock, count, (fired, since, previous) in zip(self.clocks, writes, schedule, strict=True):
            clock.writes, clock.fired, clock.since, clock.previous, clock.history = count, fired, since, previous, []
        for full, leaf in sorted((n, t) for n, t in tensors.items() if n.startswith("history/")):
            _, slot, i, name = full.split("/")
            states = self.clocks[int(slot)].history
            if int(i) == len(states):
                states.append({})
            states[int(i)][name] = leaf.to(device)
