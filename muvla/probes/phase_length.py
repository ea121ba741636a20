"""How long a policy remembers: cue and delay fixed to N steps, with the usual number of steps for the decision.

The step limit grows with N by the task's rule (`muvla.envs.registry.step_limit`). The recall suite leaves 10 steps
after the longest phases. MIKASA adds to the published limit what the phases take beyond the longest published 5 + 5, so
2N + 15 for Remember*. The control has the same limit and the task's phases: it shows the effect of the limit alone.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from muvla.config.serialization import replace
from muvla.envs.registry import step_limit
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derive_protocol, require_settable

VERSION = 1
LENGTHS = (3, 5, 10, 20, 50, 100)  # as published (μVLA spec 7)
DELAYS = (1, 2, 5, 10, 20, 50, 100, 200)  # up to twenty times the longest delay that is usually trained
Phases = Literal["cue", "delay"]


def phase_lengths(
    base: Protocol, lengths: tuple[int, ...] = LENGTHS, phases: tuple[Phases, ...] = ("cue", "delay")
) -> Grid:
    """Evaluations with cue and delay fixed to N steps, and a control with the same step limit.

    The grid has a point and a control per N.

    Raises MuvlaError for a task without such phases, and for a base whose step limit is shorter than the rule's.
    """
    require_settable(base, *phases, "step_limit")
    points = []
    for n in lengths:
        changes = {f"task.{name}": (n, n) for name in phases}
        limit = _limit(base, n, changes)
        longer = {"task.step_limit": limit}
        fixed = derive_protocol(base, f"{'phase' if len(phases) > 1 else phases[0]}{n}", VERSION, changes | longer)
        control = derive_protocol(base, f"limit{limit}", VERSION, longer if limit != step_limit(base.task) else {})
        for protocol, changed in ((fixed, "phases"), (control, "step limit only")):
            points.append(Point(protocol, "none", (("N", n), ("changed", changed), ("step_limit", limit))))
    return Grid(
        "phase-length",
        VERSION,
        tuple(points),
        x="N",
        curve="changed",
        notes=f"{' and '.join(phases)} of N steps; the step limit grows with N by the task's own rule. Control: that "
        "step limit with the task's own phases.",
    )


def delay_lengths(base: Protocol, lengths: tuple[int, ...] = DELAYS) -> Grid:
    """Evaluations with the delay fixed to N steps, and a control with the same step limit."""
    return dataclasses.replace(phase_lengths(base, lengths, ("delay",)), name="delay-length")


def _limit(base: Protocol, n: int, changes: dict[str, tuple[int, int]]) -> int:
    """Return the step limit at N by the task's rule, or the base's, which must not be shorter."""
    rule = step_limit(replace(base, changes | {"task.step_limit": None}).task)
    for name, declared in (("step_limit", base.step_limit), ("task.step_limit", base.task.step_limit)):
        if declared is not None and declared < rule:
            raise MuvlaError(
                f"protocol.{name}",
                got=declared,
                expected=f"at least {rule}, the task's step limit at N = {n}",
                remedy=f"probe from a protocol without {name}, or leave out N = {n}",
            )
    return base.task.step_limit or rule
