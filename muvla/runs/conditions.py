"""Evaluate a run under several protocols and interventions, with a line for each result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from muvla.envs.registry import backends
from muvla.errors import MuvlaError
from muvla.evaluation.checks import require_defined
from muvla.evaluation.evaluate import require_prompts
from muvla.evaluation.protocol import Protocol, require_decisions
from muvla.evaluation.records import Summary, summarise
from muvla.evaluation.results import NeverFired
from muvla.interventions import parse_intervention
from muvla.interventions.perception import with_zero_perception
from muvla.probes.base import Grid, Point
from muvla.runs.evaluate import Evaluator
from muvla.runs.results import has_result
from muvla.runs.run import Run
from muvla.runs.sanity_check import sanity_check


@dataclass(frozen=True)
class ConditionResult:
    """The result of one protocol and one intervention."""

    protocol: Protocol
    intervention: str
    summary: Summary


@dataclass(frozen=True)
class PointResult:
    """The result of one point of a grid."""

    point: Point
    summary: Summary | None  # None if the intervention acted in no episode
    error: str | None = None  # the reason then


@dataclass(frozen=True)
class EvaluationOptions:
    """How episodes are run. No option changes a row of an episode that has one."""

    retry_errors: bool = False  # run episodes again whose last attempt ended in an error
    workers: int | None = None  # environments side by side; None: as many as fit


DEFAULT = EvaluationOptions()


def require_runnable(run: Run, protocols: Iterable[Protocol], interventions: Sequence[str], retry: bool) -> None:
    """Check, before the first episode, that every simulator and asset is here. A complete result needs neither.

    Args:
        run: the run.
        protocols: the protocols.
        interventions: canonical names, or "none".
        retry: True if episodes with errors are going to be run again.

    Raises:
        MuvlaError: a simulator or an asset is missing.
    """
    for protocol in protocols:
        if not all(has_result(run, protocol, name, without_errors=retry) for name in interventions):
            backends(protocol.task)


def evaluate_conditions(
    evaluator: Evaluator,
    sets: Mapping[str, Sequence[Protocol]],
    interventions: Sequence[str],
    say: Callable[[str], None] = print,
    options: EvaluationOptions = DEFAULT,
) -> list[ConditionResult]:
    """Evaluate every protocol under every intervention.

    A policy with perceptual tokens also gets the intervention `zero_perception`.

    Args:
        evaluator: the policy.
        sets: protocols by the name that the user gave; a name of several protocols also gets their mean.
        interventions: canonical names, or "none".
        say: called with each line.
        options: how episodes are run.

    Raises:
        MuvlaError: a protocol does not fit the policy, or interventions are asked of a policy without memory.
    """
    protocols = [protocol for several in sets.values() for protocol in several]
    require_decisions(protocols)
    if list(interventions) != ["none"]:
        memory = evaluator.policy.memory
        if not memory.has_state:
            raise MuvlaError(
                "INTERVENTION",
                got=", ".join(interventions),
                expected="none: this policy has no memory",
                remedy="use `muvla evaluate`",
            )
        if memory.config.perceives:
            interventions = with_zero_perception(interventions, perceives=True)
    if evaluator.is_local:
        require_prompts(evaluator.policy, protocols)
    results: list[ConditionResult] = []
    for name, several in sets.items():
        of_set = [
            ConditionResult(protocol, intervention, _evaluate(evaluator, protocol, intervention, say, options))
            for protocol in several
            for intervention in interventions
        ]
        if len(several) > 1:
            for intervention in interventions:
                summaries = [result.summary for result in of_set if result.intervention == intervention]
                _say_mean(f"{name} {intervention}", summaries, say)
        results += of_set
    return results


def _evaluate(
    evaluator: Evaluator,
    protocol: Protocol,
    intervention: str,
    say: Callable[[str], None],
    options: EvaluationOptions,
) -> Summary:
    summary = summarise(evaluator.evaluate(protocol, intervention, options.retry_errors, options.workers))
    say(f"{protocol.id} {intervention}: {summary.text()}")
    if summary.success_rate == 0 and evaluator.is_local:
        for line in sanity_check(evaluator, protocol, intervention, options.workers):
            say(line)
    return summary


def _say_mean(name: str, summaries: Sequence[Summary], say: Callable[[str], None]) -> None:
    rates = [summary.success_rate for summary in summaries if summary.success_rate is not None]
    if rates:
        say(f"{name}: mean success {sum(rates) / len(rates):.3f} over {len(rates)} of {len(summaries)} tasks")


def evaluate_grid(evaluator: Evaluator, grid: Grid, say: Callable[[str], None] = print) -> list[PointResult]:
    """Evaluate the points of a probe's grid, with a line for each. Return their results.

    A policy without memory, and a policy that another process serves, get only the points without an intervention. A
    point whose intervention is undefined for the policy's mechanism is left out, with a line that says why.
    """
    reasons = {point.intervention: _why_left_out(evaluator, point.intervention) for point in grid.points}
    points = [point for point in grid.points if reasons[point.intervention] is None]
    if evaluator.is_local:
        require_prompts(evaluator.policy, [point.protocol for point in points])
    say(f"{grid.id}: {len(points)} of {len(grid.points)} conditions")
    for name, reason in reasons.items():
        if reason:
            say(f"  {name} not applicable: {reason}")
    results: list[PointResult] = []
    for point in points:
        coordinates = ", ".join(f"{name} {value}" for name, value in point.coordinates)
        try:
            summary = summarise(evaluator.evaluate(point.protocol, point.intervention))
            results.append(PointResult(point, summary))
            text = summary.text()
        except NeverFired as error:  # the other points are not concerned
            results.append(PointResult(point, None, str(error)))
            text = f"never fired: {error}"
        say(f"  {coordinates}, {point.intervention}: {text}")
    return results


def _why_left_out(evaluator: Evaluator, intervention: str) -> str | None:
    """Returns None for a condition that is run, "" without a memory, else why the mechanism cannot take it."""
    if intervention == "none":
        return None
    if not (evaluator.is_local and evaluator.policy.memory.has_state):
        return ""
    try:
        require_defined(parse_intervention(intervention), evaluator.policy.memory)
    except MuvlaError as error:
        return f"{error.got}, expected {error.expected}"
    return None
