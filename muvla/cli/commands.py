"""The command line's verbs on trained cells and released checkpoints: train, evaluate, watch, inspect, export."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from muvla.checkpoints.hub import resolve_checkpoint
from muvla.checkpoints.inspect import inspect
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.config.sizes import get_size
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol, get_protocols
from muvla.interventions import canonical_name
from muvla.models.compilation import compile_step
from muvla.runs.conditions import EvaluationOptions, evaluate_conditions, require_runnable
from muvla.runs.evaluate import Evaluator
from muvla.runs.export import export
from muvla.runs.find import find_run
from muvla.runs.released import released_run
from muvla.runs.replay import replay_episode
from muvla.runs.run import Run


def run_conditions(arguments: Namespace, names: list[str], device: str, stop_on_signal: Callable) -> None:
    run = run_of(arguments)
    run.require_measurement()
    sets = {name: get_protocols(name) for name in arguments.protocol}
    interventions = [canonical_name(name) for name in names]
    protocols = [protocol for several in sets.values() for protocol in several]
    require_runnable(run, protocols, interventions, arguments.retry_errors)
    evaluator = Evaluator(run, device, should_stop=stop_on_signal())
    with run.working(marks_failure=False):  # a protocol that does not fit says nothing against the cell
        if arguments.compile:
            compile_step(evaluator.policy)
        options = EvaluationOptions(arguments.retry_errors, arguments.workers)
        evaluate_conditions(evaluator, sets, interventions, print, options)


def watch(arguments: Namespace, device: str) -> None:
    run, protocol, intervention = (
        run_of(arguments),
        get_protocol(arguments.protocol),
        canonical_name(arguments.intervention),
    )
    run.require_measurement()
    evaluator = Evaluator(run, device)
    file, steps = replay_episode(evaluator, protocol, intervention, arguments.episode, arguments.out)
    print(f"{file}: {steps} steps, and it ended as its row says")


def inspect_checkpoint(name: str, size_name: str | None) -> None:
    for line in inspect(resolve_checkpoint(name), get_size(size_name) if size_name else None):
        print(line)


def export_run(runs: Path, data: Path, train: str, directory: Path, key: str) -> None:
    run = find_run(runs, data, train)
    run.require_measurement()
    export(run, directory, key)
    print(f"{directory}: written, and read again")


def run_of(arguments: Namespace) -> Run:
    """The run that `RUN` names: a train id, which has no slash, or a released checkpoint."""
    if "/" not in arguments.run and not Path(arguments.run).is_dir():
        _require_no_option_of_a_release(arguments)
        return find_run(arguments.runs, arguments.data, arguments.run)
    place = resolve_checkpoint(arguments.run)
    directory = ReleasedCheckpoint(
        place, get_size(arguments.size) if arguments.size else None, arguments.without_memory
    )
    return released_run(
        arguments.runs, arguments.data, arguments.run, directory, arguments.statistics, arguments.precision
    )


def _require_no_option_of_a_release(arguments: Namespace) -> None:
    """A trained cell has its own scale, size, precision and memory."""
    told = {
        "--statistics": arguments.statistics,
        "--size": arguments.size,
        "--without-memory": arguments.without_memory,
        "--precision": arguments.precision != "float32",
    }
    for option, value in told.items():
        if value:
            raise MuvlaError(
                option,
                got=f"with the train id {arguments.run}",
                expected="a released checkpoint",
                remedy="leave it out; what a trained cell is, stands in its configuration",
            )
