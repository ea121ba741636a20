"""Record the episodes that donor interventions take their states from.

A plain rollout of the same protocol keeps the memory of every episode at the intervention's site and schedule.
`muvla.interventions.donors` chooses which episode gives what.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import gymnasium

from muvla.config import TaskConfig
from muvla.data.normalization import Statistics
from muvla.envs.registry import open_env
from muvla.errors import MuvlaError
from muvla.evaluation.episode import Outcome
from muvla.evaluation.evaluate import default_workers
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.interventions.base import Context, Intervention
from muvla.interventions.donors import Donor, DonorBank, lengths_of, remembered
from muvla.interventions.grammar import parse_intervention
from muvla.memory.base import State, export
from muvla.models.policy import Policy


def with_donors(
    name: str,
    policy: Policy,
    statistics: Statistics,
    protocol: Protocol,
    recorded: dict[Any, tuple[Donor, ...]],
    check_stop: Callable[[], None] = lambda: None,
    workers: int | None = None,
    env_factory: Callable[[TaskConfig, int | None], gymnasium.Env] = open_env,
    record: Callable[[dict[str, Any]], AbstractContextManager[Any]] = nullcontext,
) -> Intervention | None:
    """The intervention of this name, with its bank, if it takes one. Banks are kept in `recorded`: those of one policy,
    of which one serves all kinds at a site and schedule. A bank is n states for every tick at which the schedule fires.
    `record` is entered while the episodes run, as that of `muvla.evaluation.evaluate`.

    Raises MuvlaError if an episode lacks a donor, or cannot be recorded in two attempts."""
    kind = parse_intervention(name)
    if kind is None or kind.donor is None:
        return kind
    place = protocol.hash, kind.site, kind.schedule
    if place not in recorded:
        make_env = lambda: env_factory(protocol.task, protocol.image_size)  # noqa: E731
        environments = workers or default_workers(protocol)
        recorded[place] = _record(kind, policy, statistics, protocol, make_env, environments, check_stop, record)
    bank = DonorBank(recorded[place], kind)
    bank.require()
    return replace(kind, bank=bank)


def _record(
    kind: Intervention,
    policy: Policy,
    statistics: Statistics,
    protocol: Protocol,
    make_env: Callable[[], gymnasium.Env],
    environments: int,
    check_stop: Callable[[], None],
    record: Callable[[dict[str, Any]], AbstractContextManager[Any]],
) -> tuple[Donor, ...]:
    states: dict[int, dict[int, State]] = {}
    outcomes: dict[int, Outcome] = {}

    def keep(state: State, context: Context) -> State:
        if context.tick == 0 or context.seed not in states:
            states[context.seed] = {}
        states[context.seed][context.tick] = {name: leaf.cpu() for name, leaf in export(state).items()}
        return state

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.seed] = outcome
        if outcome.error:
            states.pop(outcome.seed, None)
        check_stop()

    plain = Intervention(f"{kind.name}, its donors", kind.site, keep, "keeps", kind.schedule)
    rollout = Rollout(policy, statistics, protocol, make_env, plain, environments)
    try:
        with record(rollout.simulator):
            rollout.run(range(protocol.seed, protocol.seed + protocol.episodes), ended)
            if failed := _failed(outcomes):
                rollout.run(failed, ended)
    finally:
        rollout.close()
    if failed := _failed(outcomes):  # who gives would depend on what failed
        raise MuvlaError(
            f"intervention {kind.name}, donors",
            got=f"episode seeds {', '.join(map(str, failed))} that ended in an "
            f"error twice, the first: {outcomes[failed[0]].error}",
            expected="every episode, recorded without one",
            remedy="run it again, or choose another protocol",
        )
    found = (outcomes[seed] for seed in sorted(outcomes))
    return tuple(
        Donor(o.seed, remembered(o.info | {"identity": o.identity}), lengths_of(o.info), states.get(o.seed, {}))
        for o in found
    )


def _failed(outcomes: dict[int, Outcome]) -> list[int]:
    return sorted(seed for seed, outcome in outcomes.items() if outcome.error)
