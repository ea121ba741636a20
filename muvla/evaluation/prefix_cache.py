"""Episodes that begin where an intervention first acts: everything before has been computed already.

All rollouts of one policy under one protocol are equal up to the first tick at which an intervention acts. Each rollout
saves a snapshot before every tick at which nothing has acted yet. A rollout whose intervention acts later continues
from the last such snapshot. Rows are bit for bit those of whole episodes.

Restoring needs an environment of this process with `snapshot` and `restore`. Other environments are reset.
The cache holds, per tick of an episode, the running episode, the environment's snapshot and the memory's state of one
slot; of one protocol at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from muvla.envs.phases import events
from muvla.envs.workers import LocalEnv
from muvla.evaluation.episode import RunningEpisode
from muvla.interventions.base import Intervention
from muvla.memory.base import State, export
from muvla.recurrence import Recurrence


@dataclass(frozen=True)
class Snapshot:
    """An episode before a tick."""

    episode: RunningEpisode  # without environment, observation and donor
    env: Any  # what the environment's `snapshot` returned
    state: State  # of the memory, leaves without their slot dimension


@dataclass
class PrefixCache:
    """Snapshots by episode seed and step, and donor recordings, shared by the rollouts of one policy."""

    protocol: str = ""  # hash
    snapshots: dict[int, dict[int, Snapshot]] = field(default_factory=dict)
    donors: dict[Any, Any] = field(default_factory=dict)  # see `muvla.evaluation.donor_recording.with_donors`

    def of(self, protocol: str) -> PrefixCache:
        """Return this cache, emptied if it holds another protocol's snapshots. `protocol` is a protocol's hash."""
        if protocol != self.protocol:
            self.protocol, self.snapshots, self.donors = protocol, {}, {}
        return self

    def save(self, episode: RunningEpisode, state: State) -> None:
        """Save the episode before its next tick; `state` has leaves without their slot dimension, such as (m, D)."""
        by_step = self.snapshots.setdefault(episode.seed, {})
        if episode.step in by_step or not can_restore(episode.env):
            return
        saved = replace(
            episode,
            env=None,
            observation=None,
            # What an intervention gave or did belongs to that intervention.
            donor=None,
            compared=False,
            moved=False,
            chunks=list(episode.chunks),
        )
        by_step[episode.step] = Snapshot(saved, episode.env.env.snapshot(), export(state))

    def restore(
        self, episode: RunningEpisode, intervention: Intervention, recurrence: Recurrence
    ) -> RunningEpisode | None:
        """Restore the episode where `intervention` first acts, or at the last step saved before.

        Sets the environment of `episode` and its slot of `recurrence`. Returns None, and sets nothing, where no
        snapshot is usable.
        """
        by_step = self.snapshots.get(episode.seed, {})
        if not by_step or intervention.schedule is None or not can_restore(episode.env):
            return None
        first = intervention.schedule.first(events(next(iter(by_step.values())).episode.info))
        usable = [step for step in by_step if first and 0 < step <= first]
        if not usable:
            return None
        snapshot = by_step[max(usable)]
        ticks = [step for step in sorted(by_step) if step <= max(usable)]
        # The state before every tick but the first is what the tick before wrote.
        history = [by_step[step].state for step in ticks[1:]]
        recurrence.restore_slot(episode.index, snapshot.state, history, ticks[-2])
        return replace(
            snapshot.episode,
            index=episode.index,
            env=episode.env,
            observation=episode.env.env.restore(snapshot.env),
            started=episode.started,
            chunks=list(snapshot.episode.chunks),
        )


def can_restore(env: Any) -> bool:
    """Return True for an environment of this process that can save and restore its state."""
    return isinstance(env, LocalEnv) and hasattr(env.env, "snapshot")
