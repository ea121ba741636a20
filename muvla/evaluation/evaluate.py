"""Evaluate one policy under one protocol and one intervention: run the missing episodes, one row each."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from muvla.data.normalization import Statistics
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.action_chunks import MOST_NUMBERS, ChunkFile, most_numbers
from muvla.evaluation.checks import require_tokens
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.donor_recording import with_donors
from muvla.evaluation.episode import Outcome
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol, require_decisions
from muvla.evaluation.records import OUTCOME_FIELDS, EpisodeRow, RowFile, result_id
from muvla.evaluation.results import require_fired, set_aside
from muvla.evaluation.rollout import Rollout
from muvla.evaluation.row_checks import checked_rows
from muvla.evaluation.seal import close_seal, open_seal
from muvla.interventions import parse_intervention
from muvla.interventions.base import Intervention
from muvla.models.policy import Policy


@dataclass(frozen=True)
class EvaluationRequest:
    """A policy, a protocol, an intervention, and the train id that the rows belong to."""

    policy: Policy
    statistics: Statistics
    protocol: Protocol
    intervention: Intervention | None
    train: str  # train id
    training_seed: int | None  # None for a release
    training_episodes: tuple[range, ...]  # seeds of the demonstrations
    retry_errors: bool = False  # run those episodes again whose last attempt ended in an error

    @property
    def condition(self) -> str:
        """Canonical name of the intervention, or "none"."""
        return self.intervention.name if self.intervention else "none"


def evaluate(request: EvaluationRequest, folder: Path, context: EvaluationContext) -> RowFile:
    """Append a row per missing episode to `folder/rows/<result id>.jsonl`.

    A row of a repeated episode has a higher attempt. Chunks go to `folder/chunks`, see
    `muvla.evaluation.action_chunks`.

    Args:
        request: what is evaluated.
        folder: usually the run's folder.
        context: how; it changes no row.

    Raises:
        MuvlaError: the protocol's episodes overlap with the training's, may end before the decision, or have prompts
            that do not fit the policy; the intervention cannot act; or earlier rows are damaged (DamagedResult).
        NeverFired: the intervention has acted in no episode.
        NotAMeasurement: an invariant broke.

    In the last two cases the file is renamed to `.invalid`, so that no table reads it.
    """
    protocol = request.protocol
    require_unseen(protocol, request.training_episodes)
    result = result_id(request.train, protocol, request.condition)
    file = RowFile(folder / "rows", result)
    checked_rows(file.path, request.train, protocol, request.condition)
    missing = missing_seeds(file, protocol, request.retry_errors)
    if not missing:
        # An earlier process may have ended between its last row and these lines.
        require_fired(file, request.condition)
        close_seal(file.path)
        return file
    require_decisions([protocol])
    require_prompts(request.policy, [protocol])
    intervention = request.intervention
    if intervention:
        require_tokens(intervention, request.policy)
    intervention = with_donors(intervention, request.policy, request.statistics, protocol, context)
    actor = PolicyActor(request.policy, request.statistics, protocol, intervention, context.cache)
    stores_chunks = most_numbers(request.policy, protocol) <= MOST_NUMBERS
    recorders = [ChunkFile(folder / "chunks", result)] if stores_chunks else []
    rollout = Rollout(actor, context.make_env(protocol), recorders, min(context.environments(protocol), len(missing)))
    run_missing(rollout, file, missing, context, train=request.train, training_seed=request.training_seed)
    return file


def run_missing(
    rollout: Rollout,
    file: RowFile,
    missing: list[int],
    context: EvaluationContext,
    *,
    train: str,
    training_seed: int | None,
) -> None:
    """Run episodes, append a row for each, close the rollout, and seal the result.

    Args:
        rollout: of the actor whose rows these are.
        file: the rows of one result.
        missing: seeds of the episodes.
        context: records provenance and may stop the run.
        train: train id, for the rows.
        training_seed: for the rows; None where there is none.

    Raises:
        MuvlaError, NotAMeasurement: see `evaluate`.
    """
    condition = rollout.actor.intervention.name if rollout.actor.intervention else "none"
    try:
        with closing(rollout), context.record(rollout.simulator) as provenance:
            is_open = False

            def append(outcome: Outcome) -> None:
                nonlocal is_open
                if not is_open:  # an evaluation that runs no episode writes nothing
                    open_seal(file.path, train, rollout.protocol, condition)
                    is_open = True
                earlier = file.attempts().get(outcome.seed, 0)
                file.append(
                    episode_row(
                        outcome,
                        rollout.protocol,
                        result=file.path.stem,
                        train=train,
                        training_seed=training_seed,
                        intervention=condition,
                        earlier_attempts=earlier,
                        provenance=provenance,
                    )
                )
                context.check_stop()

            rollout.run(missing, append)
        require_fired(file, condition)
        close_seal(file.path)
    except NotAMeasurement:
        set_aside(file.path)
        raise


def episode_row(
    outcome: Outcome,
    protocol: Protocol,
    *,
    result: str,
    train: str,
    training_seed: int | None,
    intervention: str,
    earlier_attempts: int = 0,
    provenance: str,
) -> EpisodeRow:
    """Return the row of an outcome.

    Args:
        outcome: of the episode; without outcome fields if it ended in an error.
        protocol: of the episode.
        result: result id.
        train: train id.
        training_seed: None where there is none.
        intervention: canonical name, or "none".
        earlier_attempts: at the same episode, by earlier runs.
        provenance: id of the provenance record.
    """
    return EpisodeRow(
        result=result,
        train=train,
        training_seed=training_seed,
        task=protocol.task.name,
        group=task_info(protocol.task.name).suite,
        protocol=protocol.id,
        protocol_hash=protocol.hash,
        intervention=intervention,
        seed=outcome.seed,
        attempt=earlier_attempts + outcome.attempts,
        **(dict.fromkeys(OUTCOME_FIELDS) | outcome.info),
        error=outcome.error,
        update=protocol.update,
        seconds=round(outcome.seconds, 3),
        environment_seconds=round(outcome.environment_seconds, 3),
        provenance=provenance,
    )


def evaluate_policy(
    policy: Policy, statistics: Statistics, protocol: Protocol, intervention: str | Intervention | None = None
) -> list[EpisodeRow]:
    """Run all episodes of a protocol in memory, without a run folder, and return their rows by seed.

    Args:
        policy: trained or not.
        statistics: scale of its proprioception and actions (`Trainer.statistics`).
        protocol: must not contain episodes that the policy was trained on; this is not checked here.
        intervention: a name such as "zero@cue_end", or an intervention; donors are recorded first.

    Returns:
        A row per episode, without train id and provenance. `muvla.evaluation.records.summarise` counts them.

    Raises:
        MuvlaError: policy, robot, task and intervention do not fit together.
        NotAMeasurement: an invariant broke.
    """
    if isinstance(intervention, str):
        intervention = parse_intervention(intervention)
    condition = intervention.name if intervention else "none"
    context = EvaluationContext()
    require_decisions([protocol])
    require_prompts(policy, [protocol])
    if intervention:
        require_tokens(intervention, policy)
    intervention = with_donors(intervention, policy, statistics, protocol, context)
    actor = PolicyActor(policy, statistics, protocol, intervention)
    rows: list[EpisodeRow] = []

    def append(outcome: Outcome) -> None:
        row = episode_row(
            outcome, protocol, result="", train="", training_seed=None, intervention=condition, provenance=""
        )
        rows.append(row)

    with closing(Rollout(actor, context.make_env(protocol), environments=context.environments(protocol))) as rollout:
        rollout.run(range(protocol.seed, protocol.seed + protocol.episodes), append)
    return sorted(rows, key=lambda row: row.seed)


def require_unseen(protocol: Protocol, training_episodes: Iterable[range]) -> None:
    """Raise MuvlaError if one of the protocol's episodes may be among the demonstrations."""
    seeds = range(protocol.seed, protocol.seed + protocol.episodes)
    for demonstrations in training_episodes:
        if max(seeds.start, demonstrations.start) < min(seeds.stop, demonstrations.stop):
            raise MuvlaError(
                "protocol.seed",
                got=f"episodes {seeds.start}…{seeds.stop - 1}",
                expected=f"none of the training episodes {demonstrations.start}…{demonstrations.stop - 1}",
                remedy="train on demonstrations from another block of seeds, or choose another protocol",
            )


def require_prompts(policy: Policy, protocols: Iterable[Protocol]) -> None:
    """Raise MuvlaError, before any episode runs, if a protocol may have a prompt that does not fit the policy."""
    interface = policy.interface
    lengths = {
        # Any target stands for all: where more targets make a longer prompt, `encode_text` refuses it.
        len(policy.prompts.encode(interface.instruction({"instruction": text, "target": 0}))): protocol.id
        for protocol in protocols
        for text in task_info(protocol.task.name).instructions
    }
    unfit = [n for n in lengths if n > interface.text or (n < interface.text and not interface.text_padded)]
    if unfit:
        longest = max(interface.text, *lengths)
        raise MuvlaError(
            "model.prompt_tokens",
            got=f"a prompt of {max(unfit)} tokens in protocol {lengths[max(unfit)]}",
            expected=f"{'at most' if interface.text_padded else 'exactly'} {interface.text}, as the policy was trained",
            remedy=f"train with model.prompt_tokens={longest} or more, or evaluate on the training's tasks",
        )


def missing_seeds(file: RowFile, protocol: Protocol, retry_errors: bool) -> list[int]:
    """Return the protocol's episodes without a row; with `retry_errors`, also those that ended in an error."""
    attempts = file.attempts(count_errors=not retry_errors)
    return [seed for seed in range(protocol.seed, protocol.seed + protocol.episodes) if seed not in attempts]
