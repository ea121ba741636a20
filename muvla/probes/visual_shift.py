"""How much a policy depends on looks: the camera moved, the light dimmed, a distractor added, one at a time.

Each suite defines its own changes (`muvla.envs.mikasa.appearance`, `muvla.envs.recall.scene`). Physics, places and
targets stay.
"""

from __future__ import annotations

from typing import Literal

from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derived, require_settable

VERSION = 1
Shift = Literal["camera", "light", "distractor"]


def shifts(base: Protocol, kinds: tuple[Shift, ...] = ("camera", "light", "distractor")) -> Grid:
    """The base, and a point per shift."""
    require_settable(base, "shift")
    points = [Point(base, "none", (("shift", "none"),))]
    for kind in kinds:
        points.append(Point(derived(base, kind, VERSION, {"task.shift": kind}), "none", (("shift", kind),)))
    notes = "A change of looks alone, as the task's suite makes it."
    return Grid("shift", VERSION, tuple(points), x="shift", notes=notes)
