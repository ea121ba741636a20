"""The common part of `muvla evaluate` and `muvla intervene`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muvla.cli.computing import prepare, stop_on_signal
from muvla.cli.output import result_line, show_json, summary_data

if TYPE_CHECKING:
    from muvla.runs.conditions import ConditionResult
    from muvla.runs.run import Run


@dataclass(frozen=True)
class Computing:
    """How the episodes are run."""

    device: str
    threads: int
    compile: bool
    retry_errors: bool
    workers: int | None


def evaluate_and_show(run: Run, protocols: Sequence[str], interventions: Sequence[str], how: Computing) -> None:
    """Evaluate every protocol under every intervention, and show a line or an object for each.

    Args:
        run: the run.
        protocols: names of protocols or of sets.
        interventions: names of interventions, or "none".
        how: how the episodes are run.
    """
    from muvla.cli.policies import open_evaluator
    from muvla.evaluation.catalog import get_protocols
    from muvla.interventions import canonical_name
    from muvla.models.compilation import compile_step
    from muvla.runs.conditions import EvaluationOptions, evaluate_conditions, require_runnable

    device = prepare(how.device, how.threads, how.compile)
    sets = {name: get_protocols(name) for name in protocols}
    names = [canonical_name(name) for name in interventions]
    require_runnable(run, [protocol for several in sets.values() for protocol in several], names, how.retry_errors)
    evaluator = open_evaluator(run, device, stop_on_signal())
    with run.working(marks_failure=False):  # a protocol that does not fit says nothing against the cell
        if how.compile:
            compile_step(evaluator.policy)
        options = EvaluationOptions(how.retry_errors, how.workers)
        results = evaluate_conditions(evaluator, sets, names, result_line, options)
    show_json({"train": run.train, "results": [_plain(result) for result in results]})


def _plain(result: ConditionResult) -> dict[str, Any]:
    return {"protocol": result.protocol.id, "intervention": result.intervention, **summary_data(result.summary)}
