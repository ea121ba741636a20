"""Episodes that begin where an intervention first acts: what is before it has been computed already.

Every rollout of one policy under one protocol is the same up to there, so each keeps, before every tick at which
nothing has acted yet, where its episodes stand; and one that acts later goes on from the last such place. Rows are bit
for bit those of whole episodes. This needs an environment that can be put back exactly: one with `snapshot` and
`restore`, in this process. Others begin at their beginning.

Kept are, for each tick of an episode, a slot's state and a few numbers; of one protocol at a time.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any

from muvla.envs.phases import events
from muvla.envs.workers import LocalEnv
from muvla.evaluation.episode import RunningEpisode
from muvla.interventions.base import Intervention
from muvla.memory.base import State, export
from muvla.recurrence import Recurrence


@dataclass(frozen=True)
class Snapshot:
    """Where an episode stands before a tick."""

    slot: RunningEpisode  # without environment and observation
    env: Any  # its snapshot
    state: State  # of its memory


@dataclass
class PrefixCache:
    """What rollouts of one policy share: places, by episode seed and step, and the donors that were recorded."""

    protocol: str = ""  # hash
    places: dict[int, dict[int, Snapshot]] = field(default_factory=dict)
    donors: dict[Any, Any] = field(default_factory=dict)

    def of(self, protocol: str) -> PrefixCache:
        """Itself, emptied if it held another protocol's."""
        if protocol != self.protocol:
            self.protocol, self.places, self.donors = protocol, {}, {}
        return self

    def keep(self, slot: RunningEpisode, state: State) -> None:
        """Before a tick of the slot, whose memory's `state` has the leaves (m, D)."""
        own = self.places.setdefault(slot.seed, {})
        if slot.step in own or not can_branch(slot.env):
            return
        kept = copy(slot)
        kept.env = kept.observation = kept.donor = None  # what an intervention gives or did is its own
        kept.compared = kept.moved = False
        kept.ticks = list(slot.ticks)
        own[slot.step] = Snapshot(kept, slot.env.env.snapshot(), export(state))

    def put(self, slot: RunningEpisode, index: int, seed: int, kind: Intervention, recurrence: Recurrence) -> bool:
        """Brings a slot and its memory to where `kind` first acts in the episode of this seed, or close before it;
        whether such a place is known."""
        own = self.places.get(seed, {})
        first = kind.schedule and own and kind.schedule.first(events(next(iter(own.values())).slot.info))
        known = [step for step in own if first and 0 < step <= first]
        if not known or not can_branch(slot.env):
            return False
        place, env = own[max(known)], slot.env
        observation = env.env.restore(place.env)
        began = slot.started
        slot.__dict__.update(copy(place.slot).__dict__)
        slot.env, slot.observation, slot.ticks, slot.started = env, observation, list(place.slot.ticks), began
        ticks = [step for step in sorted(own) if step <= max(known)]
        # Of every tick but the first the state is what the tick before it wrote.
        recurrence.put(index, place.state, [own[step].state for step in ticks[1:]], ticks[-2])
        return True


def can_branch(env: Any) -> bool:
    return isinstance(env, LocalEnv) and hasattr(env.env, "snapshot")
