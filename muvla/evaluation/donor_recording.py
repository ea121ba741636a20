"""Record the episodes whose memory donor interventions use.

A rollout of the same protocol without an intervention records the memory of every episode, at the intervention's site
and schedule. `muvla.interventions.donors` chooses the donor of each episode.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from muvla.data.normalization import Statistics
from muvla.errors import MuvlaError
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.episode import Outcome, RunningEpisode
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.rollout import Rollout
from muvla.interventions.base import Intervention
from muvla.interventions.context import Context
from muvla.interventions.donors.bank import DonorBank
from muvla.interventions.donors.donor import Donor, lengths_of, remembered
from muvla.memory.base import State, export
from muvla.models.policy import Policy

Recorded = dict[Any, tuple[Donor, ...]]  # (protocol hash, site, schedule) → its episodes, by seed


class DonorRecorder(Recorder):
    """Records states at an intervention's site and schedule.

    The actor must run under `intervention`, which passes on every state unchanged.
    """

    def __init__(self, intervention: Intervention):
        self.intervention = Intervention(
            f"donors of {intervention.name}",
            intervention.site,
            self._record,
            "keeps",
            intervention.schedule,
            whole_state=True,
        )
        self.outcomes: dict[int, Outcome] = {}  # by seed
        self._states: dict[int, dict[int, State]] = {}  # seed → step → state, on the CPU

    def episode_begins(self, episode: RunningEpisode) -> None:
        self._states[episode.seed] = {}

    def _record(self, state: State, context: Context) -> State:
        # At the site `read`, tokens and retrieved content of one tick come one after the other.
        recorded = self._states[context.seed].setdefault(context.tick, {})
        recorded.update({name: leaf.cpu() for name, leaf in export(state).items()})
        return state

    def episode_ends(self, episode: RunningEpisode, outcome: Outcome) -> None:
        self.outcomes[outcome.seed] = outcome

    def failed(self) -> list[int]:
        """Return the seeds of the episodes whose last attempt ended in an error."""
        return sorted(seed for seed, outcome in self.outcomes.items() if outcome.error)

    def donors(self) -> tuple[Donor, ...]:
        """Return the recorded episodes, by seed."""
        return tuple(
            Donor(
                seed,
                remembered(outcome.info | {"identity": outcome.identity}),
                lengths_of(outcome.info),
                self._states[seed],
            )
            for seed, outcome in sorted(self.outcomes.items())
        )


def with_donors(
    intervention: Intervention | None,
    policy: Policy,
    statistics: Statistics,
    protocol: Protocol,
    context: EvaluationContext,
) -> Intervention | None:
    """Return the intervention with its bank of donors, if it uses donors; else the intervention itself.

    Args:
        intervention: with or without donors, or None.
        policy: whose episodes are recorded.
        statistics: scale of its proprioception and actions.
        protocol: of the donors and of the episodes that receive their states.
        context: its cache holds the recordings. One recording serves all interventions at one site and schedule, and
            holds a state per episode and tick at which the schedule fires.

    Raises:
        MuvlaError: an episode lacks a donor, or ends in an error twice.
    """
    if intervention is None or intervention.donor is None or intervention.bank is not None:
        return intervention
    recorded: Recorded = context.cache.of(protocol.hash).donors
    key = protocol.hash, intervention.site, intervention.schedule
    if key not in recorded:
        recorded[key] = _record(intervention, policy, statistics, protocol, context)
    bank = DonorBank(recorded[key], intervention)
    bank.require()
    return replace(intervention, bank=bank)


def _record(
    intervention: Intervention, policy: Policy, statistics: Statistics, protocol: Protocol, context: EvaluationContext
) -> tuple[Donor, ...]:
    recorder = DonorRecorder(intervention)
    actor = PolicyActor(policy, statistics, protocol, recorder.intervention)
    rollout = Rollout(actor, context.make_env(protocol), [recorder], context.environments(protocol))
    on_outcome = lambda _: context.check_stop()  # noqa: E731
    try:
        with context.record(rollout.simulator):
            rollout.run(range(protocol.seed, protocol.seed + protocol.episodes), on_outcome)
            if failed := recorder.failed():
                rollout.run(failed, on_outcome)
    finally:
        rollout.close()
    if failed := recorder.failed():  # the choice of donors would depend on the failures
        raise MuvlaError(
            f"intervention {intervention.name}, donors",
            got=f"episode seeds {', '.join(map(str, failed))} that ended in an "
            f"error twice, the first: {recorder.outcomes[failed[0]].error}",
            expected="every episode, recorded without one",
            remedy="run it again, or choose another protocol",
        )
    return recorder.donors()
