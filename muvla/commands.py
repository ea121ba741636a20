"""The command line's verbs on one trained cell or one released checkpoint: evaluate, intervene, inspect, export."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from muvla.errors import MuvlaError
from muvla.evaluation.protocol import protocols
from muvla.evaluation.records import summarise
from muvla.exporting import export
from muvla.inspection import inspect
from muvla.interventions import intervention
from muvla.models.checkpoints import Directory
from muvla.models.compiling import compile_step
from muvla.models.hub import checkpoint_folder
from muvla.models.sizes import size
from muvla.released_runs import released_run
from muvla.runs import NOT_A_MEASUREMENT, Run, find_run


def run_conditions(arguments: Namespace, kinds: list[str], device: str, stop_on_signal: Callable) -> None:
    """Evaluates under every protocol and every intervention in `kinds`, and prints a line for each."""
    run = _run_of(arguments)
    _require_measurement(run)
    evaluated = list(dict.fromkeys(one for name in arguments.protocol for one in protocols(name)))
    for kind in kinds:
        intervention(kind)
    stop = stop_on_signal()
    with run.working(marks_failure=False):  # a protocol that does not fit says nothing against the cell
        policy = run.load_policy(device)
        if arguments.compile:
            compile_step(policy)
        if policy.memory.width == 0 and kinds != ["none"]:
            raise MuvlaError(
                "KIND", got=", ".join(kinds), expected="nothing: this policy has no memory",
                remedy="use `muvla evaluate`",
            )  # fmt: skip
        for one in evaluated:
            for kind in kinds:
                s = summarise(run.evaluate(one, kind, device, policy, stop))
                touch, choice, success = (
                    "–" if rate is None else f"{rate:.3f}" for rate in (s.touch_rate, s.choice_accuracy, s.success_rate)
                )
                errors = f", {s.errors} episodes with errors, in no rate" if s.errors else ""
                print(f"{one.id} {kind}: n {s.measured}, touch rate {touch}, choice accuracy given a touch "
                      f"{choice}, success {success}{errors}")  # fmt: skip


def inspect_checkpoint(name: str, size_name: str | None) -> None:
    for line in inspect(checkpoint_folder(name), size(size_name) if size_name else None):
        print(line)


def export_run(runs: Path, data: Path, train: str, directory: Path, key: str) -> None:
    run = find_run(runs, data, train)
    _require_measurement(run)
    export(run, directory, key)
    print(f"{directory}: written, and read again")


def _run_of(arguments: Namespace) -> Run:
    """The run that `RUN` names: a train id, which has no slash, or a released checkpoint."""
    if "/" not in arguments.run and not Path(arguments.run).is_dir():
        _require_no_option_of_a_release(arguments)
        return find_run(arguments.runs, arguments.data, arguments.run)
    place = checkpoint_folder(arguments.run)
    directory = Directory(place, size(arguments.size) if arguments.size else None, arguments.without_memory)
    return released_run(
        arguments.runs, arguments.data, arguments.run, directory, arguments.statistics, arguments.precision
    )


def _require_no_option_of_a_release(arguments: Namespace) -> None:
    """A trained cell has its own scale, size, precision and memory."""
    told = {"--statistics": arguments.statistics, "--size": arguments.size,
            "--without-memory": arguments.without_memory, "--precision": arguments.precision != "float32"}  # fmt: skip
    for option, value in told.items():
        if value:
            raise MuvlaError(
                option, got=f"with the train id {arguments.run}", expected="a released checkpoint",
                remedy="leave it out; what a trained cell is, stands in its configuration",
            )  # fmt: skip


def _require_measurement(run: Run) -> None:
    if (run.failure or {}).get("kind") == NOT_A_MEASUREMENT:
        raise MuvlaError(
            "RUN", got=f"{run.train}, marked {NOT_A_MEASUREMENT!r}", expected="a cell whose numbers count",
            remedy=run.way_out,
        )  # fmt: skip
