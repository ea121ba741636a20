"""One trained cell under one protocol and one intervention: the episodes that are still missing, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium

from muvla.config import TaskConfig
from muvla.data.normalization import Statistics
from muvla.envs.registry import open_env, task_info
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.action_chunks import MOST, ChunkFile
from muvla.evaluation.checks import require_tokens
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.protocol import Protocol, require_decisions
from muvla.evaluation.records import EpisodeRow, RowFile, result_id
from muvla.evaluation.results import require_fired
from muvla.evaluation.rollout import Outcome, Rollout
from muvla.interventions.base import Intervention
from muvla.models.policy import Policy
from muvla.utils.devices import usable_cores


def evaluate(
    policy: Policy,
    statistics: Statistics,
    protocol: Protocol,
    intervention: Intervention | None,
    *,
    train: str,
    training_seed: int | None,
    training_episodes: tuple[range, ...],
    rows: Path,
    record: Callable[[dict[str, Any]], AbstractContextManager[str]],
    env_factory: Callable[[TaskConfig, int | None], gymnasium.Env] = open_env,
    check_stop: Callable[[], None] = lambda: None,
    retry_errors: bool = False,
    workers: int | None = None,
    chunks: Path | None = None,
    branches: PrefixCache | None = None,
    donors: Callable[[Intervention], Intervention] = lambda kind: kind,
) -> RowFile:
    """Appends a row per episode to `rows/<result id>.jsonl`; episodes that already have a row are not run again,
    except, if told, those whose last attempt ended in an error: their new row has a higher attempt.

    `record` is entered with what the environments tell of themselves, holds while the episodes run, and gives their
    provenance id. `workers` bounds the environments that step side by side, which changes no row; at most, and for a
    task that steps in this process by default, there are as many as the protocol has slots, else one per core. In the
    folder `chunks`, where there is one, the predicted chunks are kept (`muvla.evaluation.action_chunks`); `branches`
    are shared by evaluations of one policy, so that none computes what another has (`muvla.evaluation.prefix_cache`).
    Once nothing else speaks against it, `donors` binds the intervention to what it takes from other episodes.

    Raises MuvlaError if the protocol's seeds overlap one of `training_episodes`, its prompts do not fit the policy, its
    episodes may end before the decision, or the intervention acted in none, and NotAMeasurement when an invariant
    breaks; in the last two cases the file is set aside as `.invalid`, so that nothing in it can reach a table.
    `check_stop` is called after every row and may raise to end the evaluation early.
    """
    require_unseen(protocol, training_episodes)
    name = intervention.name if intervention else "none"
    file = RowFile(rows, result_id(train, protocol, name))
    missing = missing_seeds(file, protocol, retry_errors)
    if not missing:
        require_fired(file, name)  # a process may have ended between its last row and this
        return file
    require_decisions([protocol])
    require_prompts(policy, [protocol])
    if intervention:
        require_tokens(intervention, policy)
        intervention = donors(intervention)
    rollout = Rollout(
        policy,
        statistics,
        protocol,
        lambda: env_factory(protocol.task, protocol.image_size),
        intervention,
        min(workers or default_workers(protocol), len(missing)),
        branches,
    )
    kept = ChunkFile(chunks, file.path.stem) if chunks and rollout.most_numbers <= MOST else None
    whose = {"train": train, "training_seed": training_seed, "intervention": name}
    run_missing(file, missing, rollout, record, check_stop, kept, **whose)
    return file


def require_unseen(protocol: Protocol, training_episodes: Iterable[range]) -> None:
    """Raises MuvlaError if one of the protocol's episodes may be among the demonstrations."""
    seeds = range(protocol.seed, protocol.seed + protocol.episodes)
    for one in training_episodes:
        if max(seeds.start, one.start) < min(seeds.stop, one.stop):
            raise MuvlaError(
                "protocol.seed",
                got=f"episodes {seeds.start}…{seeds.stop - 1}",
                expected=f"none of the training episodes {one.start}…{one.stop - 1}",
                remedy="train on demonstrations from another block of seeds, or choose another protocol",
            )


def missing_seeds(file: RowFile, protocol: Protocol, retry_errors: bool) -> list[int]:
    """Of the episodes without a row; if told, also of those whose last attempt ended in an error."""
    attempts = file.attempts(count_errors=not retry_errors)
    return [seed for seed in range(protocol.seed, protocol.seed + protocol.episodes) if seed not in attempts]


def run_missing(
    file: RowFile,
    missing: list[int],
    rollout: Rollout,
    record: Callable[[dict[str, Any]], AbstractContextManager[str]],
    check_stop: Callable[[], None],
    kept: ChunkFile | None = None,
    **whose: Any,
) -> None:
    """Runs these episodes and appends a row for each, and its chunks to `kept`; closes the rollout. `whose` are the
    fields of a row that tell whose it is: train, training_seed, intervention. For `record`, `check_stop` and what is
    raised see `evaluate`."""
    protocol = rollout.protocol
    group = task_info(protocol.task.name).suite

    def append(outcome: Outcome, provenance: str) -> None:
        nothing = dict.fromkeys(
            (
                "target",
                "choice",
                "blank_length",
                "cue_length",
                "delay_length",
                "first_decision_step",
                "success_once",
                "success_at_end",
                "first_success_step",
                "steps",
                "fired",
                "donor_seed",
                "donor_target",
            )
        )
        if kept and outcome.ticks:
            kept.append(outcome.seed, outcome.ticks)
        file.append(
            EpisodeRow(
                result=file.path.stem,
                task=protocol.task.name,
                group=group,
                protocol=protocol.id,
                protocol_hash=protocol.hash,
                seed=outcome.seed,
                attempt=file.attempts().get(outcome.seed, 0) + outcome.attempts,
                **(nothing | outcome.info),
                error=outcome.error,
                seconds=round(outcome.seconds, 3),
                environment_seconds=round(outcome.environment_seconds, 3),
                provenance=provenance,
                **whose,
            )
        )
        check_stop()

    try:
        with record(rollout.simulator) as provenance:
            rollout.run(missing, lambda outcome: append(outcome, provenance))
        require_fired(file, whose["intervention"])
    except NotAMeasurement:
        if file.path.exists():
            file.path.replace(file.path.with_suffix(".invalid"))
        raise
    finally:
        rollout.close()


def require_prompts(policy: Policy, protocols: Iterable[Protocol]) -> None:
    """Raises MuvlaError, before any episode runs, if one of them may have a prompt that the policy has no place for."""
    own = policy.interface
    lengths = {
        len(policy.prompts.encode(text)): one.id for one in protocols for text in task_info(one.task.name).instructions
    }
    unfit = [n for n in lengths if n > own.text or (n < own.text and not own.text_padded)]
    if unfit:
        raise MuvlaError(
            "model.prompt_tokens",
            got=f"a prompt of {max(unfit)} tokens in protocol {lengths[max(unfit)]}",
            expected=f"{'at most' if own.text_padded else 'exactly'} {own.text}, as the policy was trained",
            remedy=f"train with model.prompt_tokens={max(own.text, *lengths)} or more, or evaluate on its own tasks",
        )


def default_workers(protocol: Protocol, evaluations: int = 1) -> int:
    """Environments side by side, where so many evaluations run at once: as many as the protocol has slots; of
    simulators with processes of their own, one per core in all."""
    if not task_info(protocol.task.name).own_process:
        return protocol.slots
    return max(1, usable_cores() // evaluations)
