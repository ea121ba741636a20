"""The verb of the command line about probes: grids of conditions and readings of the memory, on one checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial


def add_probe_verbs(
    verb: Callable, of_policy: Callable, computing: Callable, prepare: Callable, stop_on_signal: Callable
) -> None:
    """`verb` makes the parser of a verb of a name, function and help; `of_policy` and `computing` add the options of a
    policy, and of where it computes; `prepare` reads the latter, and `stop_on_signal` gives what tells of a stop."""
    run = partial(_probe, prepare=prepare, stop_on_signal=stop_on_signal)
    probe = verb("probe", run, "probes on a trained cell or a released checkpoint, without a study")
    of_policy(probe)
    probe.add_argument("probe", nargs="+", help="by name, for instance decoders; an unknown one lists them all")
    probe.add_argument("--protocol", required=True, help="that they start from, for instance recall-position3-rh@1")
    probe.add_argument("--episodes", type=int, metavar="N", help="the first N of the protocol's (default: all)")
    computing(probe)


def _probe(arguments: argparse.Namespace, prepare: Callable, stop_on_signal: Callable) -> None:
    from muvla.cli.commands import run_of
    from muvla.evaluation.catalog import get_protocol
    from muvla.models.compilation import compile_step
    from muvla.probes.base import Grid, ScheduledMeasurement
    from muvla.probes.registry import get_probe
    from muvla.runs.conditions import evaluate_grid
    from muvla.runs.evaluate import Evaluator
    from muvla.runs.probe import take_measurement

    device = prepare(arguments)
    run, base = run_of(arguments), get_protocol(arguments.protocol)
    run.require_measurement()
    evaluator = Evaluator(run, device, should_stop=stop_on_signal())
    with run.working(marks_failure=False):
        if arguments.compile:
            compile_step(evaluator.policy)
        for probe in [get_probe(name, base) for name in arguments.probe]:
            if isinstance(probe, Grid):
                evaluate_grid(evaluator, probe)
            else:
                print(
                    f"{probe.id}: {take_measurement(evaluator, ScheduledMeasurement(probe, base, arguments.episodes))}"
                )
