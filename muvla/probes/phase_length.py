"""How long is remembered: cue and delay fixed to N steps, with as many steps for the decision as ever.

The step limit grows with N by the task's own rule (`muvla.envs.registry.step_limit`): the recall suite leaves 10 steps
after the longest phases; MIKASA adds to the published limit what they take more than the longest published 5 + 5, so
2N + 15 for Remember*. The control has that limit and the task's own phases: what a longer limit alone does.
"""

from __future__ import annotations

from typing import Literal

from muvla.config.serialization import replace
from muvla.envs.registry import step_limit
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derived, require_settable

VERSION = 1
LENGTHS = (3, 5, 10, 20, 50, 100)  # as published (μVLA spec 7)
Phases = Literal["cue", "delay"]


def phase_lengths(
    base: Protocol, lengths: tuple[int, ...] = LENGTHS, phases: tuple[Phases, ...] = ("cue", "delay")
) -> Grid:
    """A point per N with the named phases fixed to N, and its control. Raises MuvlaError where the task has no such
    phase, and where the base has a step limit of its own that is shorter than the rule's."""
    require_settable(base, *phases, "step_limit")
    points = []
    for n in lengths:
        changes = {f"task.{name}": (n, n) for name in phases}
        limit = _limit(base, n, changes)
        longer = {"task.step_limit": limit}
        fixed = derived(base, f"{'phase' if len(phases) > 1 else phases[0]}{n}", VERSION, changes | longer)
        control = derived(base, f"limit{limit}", VERSION, longer if limit != step_limit(base.task) else {})
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


def _limit(base: Protocol, n: int, changes: dict[str, tuple[int, int]]) -> int:
    """The step limit at N: the task's by its rule, or the base's own, which must not be shorter."""
    rule = step_limit(replace(base, changes | {"task.step_limit": None}).task)
    for name, own in (("step_limit", base.step_limit), ("task.step_limit", base.task.step_limit)):
        if own is not None and own < rule:
            raise MuvlaError(
                f"protocol.{name}",
                got=own,
                expected=f"at least {rule}, the task's step limit at N = {n}",
                remedy=f"probe from a protocol without {name}, or leave out N = {n}",
            )
    return base.task.step_limit or rule
