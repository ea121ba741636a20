"""Where an intervention acts in a batch, and what it changes there.

An intervention is a function on the memory of *one* slot. It is called slot by slot, so that a batch computes what
single episodes would, and only where its schedule fires.

Legend: B slots, m MEMORY tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from muvla.interventions.base import Intervention, Site
from muvla.interventions.context import Context
from muvla.interventions.selection import Selection
from muvla.memory.base import Memory
from muvla.memory.contract import Read, Retrieved, State, Units
from muvla.recurrence.moment import Moment
from muvla.recurrence.slot_clock import SlotClock


class Intervener:
    """One intervention on the memories of B slots."""

    def __init__(self, intervention: Intervention, memory: Memory, clocks: list[SlotClock]):
        self.intervention, self.memory, self.clocks = intervention, memory, clocks

    def firing(self, moment: Moment, active: Tensor | None) -> list[int]:
        """The slots in which the intervention acts at this tick; their clocks note the first time."""
        intervention = self.intervention
        if not self.memory.has_state:
            return []
        slots = list(range(len(self.clocks))) if active is None else active.nonzero().flatten().tolist()
        if intervention.schedule is not None:
            events = moment.events or [{}] * len(self.clocks)
            slots = [i for i in slots if intervention.fires(moment.tick[i], events[i], self.clocks[i].previous)]
        if intervention.donor is not None:
            slots = [i for i in slots if moment.donor is not None and moment.donor[i] is not None]
        for slot in slots:
            if self.clocks[slot].fired == 0:
                self.clocks[slot].since = self.clocks[slot].writes
        return slots

    def change_state(self, site: Site, state: State, moment: Moment, firing: list[int]) -> State:
        """The carried state after the intervention.

        Args:
            site: `before_read` or `after_write`.
            state: leaves (B, …).
            moment: steps, phases and donors of the slots.
            firing: slots in which the intervention acts.
        """
        if not firing or self.intervention.site != site:
            return state
        units = self.memory.units
        selections = {
            slot: Selection(units, self.memory.valid_units({name: leaf[slot] for name, leaf in state.items()}))
            for slot in firing
        }
        return self._changed(state, moment, selections)

    def change_read(self, read: Read, moment: Moment, firing: list[int]) -> Read:
        """The MEMORY tokens after the intervention, at the site `read`: other values, or fewer tokens."""
        if not firing or self.intervention.site != "read" or self.memory.tokens == 0:
            return read
        if self.intervention.skips:
            present = torch.ones_like(read.tokens[..., 0], dtype=torch.bool) if read.present is None else read.present
            return replace(read, present=present & ~self._slots(firing, present)[:, None])
        units, tokens = Units("tokens", self.memory.tokens, ("tokens",)), {"tokens": read.tokens}
        selections = {slot: Selection(units, None if read.present is None else read.present[slot]) for slot in firing}
        if not self.intervention.removes:
            return replace(read, tokens=self._changed(tokens, moment, selections)["tokens"])
        present = torch.ones(read.tokens.shape[:2], dtype=torch.bool) if read.present is None else read.present.clone()
        for slot, state, context in self._contexts(tokens, moment, selections):
            present[slot] &= ~self.intervention.removed(state, context).to(present.device)
        return replace(read, present=present.to(read.tokens.device))

    def change_retrieved(self, retrieved: Retrieved, moment: Moment, firing: list[int]) -> Retrieved:
        """The retrieved content after the intervention, at the site `read`. It has no units that could be chosen."""
        if not firing or self.intervention.site != "read" or self.intervention.removes:
            return retrieved
        if self.intervention.skips:
            return replace(retrieved, skipped=self._slots(firing, retrieved.content))
        selections = {slot: Selection(Units(), None) for slot in firing}
        names = ("perception",) if self.intervention.on_perception else ("content", "perception")
        parts = {name: getattr(retrieved, name) for name in names}
        present = {name: part for name, part in parts.items() if part is not None and part.numel()}
        return replace(retrieved, **self._changed(present, moment, selections))

    def _slots(self, firing: list[int], like: Tensor) -> Tensor:
        """(B,) bool, the slots in which the intervention acts."""
        slots = torch.zeros(len(self.clocks), dtype=torch.bool, device=like.device)
        slots[firing] = True
        return slots

    def _changed(self, state: State, moment: Moment, selections: dict[int, Selection]) -> State:
        changed = {
            slot: self.intervention.apply(one_slot, context)
            for slot, one_slot, context in self._contexts(state, moment, selections)
        }
        return {
            name: torch.stack([changed[slot][name] if slot in changed else row for slot, row in enumerate(leaf)])
            for name, leaf in state.items()
        }

    def _contexts(
        self, state: State, moment: Moment, selections: dict[int, Selection]
    ) -> Iterator[tuple[int, State, Context]]:
        """(slot, its state, what the intervention may know about it) for every slot in which it acts."""
        initial = {name: leaf[0] for name, leaf in self.memory.init_state(1).items()}
        for slot, selection in selections.items():
            context = Context(
                tick=moment.tick[slot],
                phase=moment.phase[slot],
                key=moment.key[slot],
                seed=moment.seed[slot],
                history=self.clocks[slot].history,
                donor=moment.donor[slot] if moment.donor else None,
                initial=initial,
                argument=self.intervention.argument,
                since=self.clocks[slot].since,
                selection=selection,
            )
            yield slot, {name: leaf[slot] for name, leaf in state.items()}, context
