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
    from muvla.cli.commands import require_measurement, run_of
    from muvla.errors import MuvlaError
    from muvla.evaluation.protocol import get_protocol
    from muvla.models.compilation import compile_step
    from muvla.probes.base import Grid, ScheduledMeasurement
    from muvla.probes.registry import get_probe

    device = prepare(arguments)
    run, base = run_of(arguments), get_protocol(arguments.protocol)
    require_measurement(run)
    probes = [get_probe(name, base) for name in arguments.probe]
    if arguments.episodes is not None and any(isinstance(one, Grid) for one in probes):
        raise MuvlaError(
            "--episodes", got="with a grid", expected="a reading", remedy="leave it out: a protocol has its episodes"
        )
    stop = stop_on_signal()
    with run.working(marks_failure=False):
        policy = run.load_policy(device)
        if arguments.compile:
            compile_step(policy)
        for one in probes:
            if isinstance(one, Grid):
                _run_grid(run, one, device, policy, stop)
            else:
                file = run.probe(ScheduledMeasurement(one, base, arguments.episodes), device, policy, stop)
                print(f"{one.id}: {file}")


def _run_grid(run, grid, device, policy, stop) -> None:
    """A line per point; of a policy without memory, those without an intervention."""
    from muvla.evaluation.evaluate import require_prompts
    from muvla.evaluation.records import summarise
    from muvla.evaluation.results import NeverFired

    points = [p for p in grid.points if p.intervention == "none" or policy.memory.width > 0]
    require_prompts(policy, [point.protocol for point in points])
    print(f"{grid.id}: {len(points)} of {len(grid.points)} conditions")
    for point in points:
        where = ", ".join(f"{name} {value}" for name, value in point.coordinates)
        try:
            said = summarise(run.evaluate(point.protocol, point.intervention, device, policy, stop)).readings()
        except NeverFired as error:  # of this point alone
            said = f"never fired: {error}"
        print(f"  {where}, {point.intervention}: {said}")
