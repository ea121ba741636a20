"""How much a policy depends on appearance: camera moved, light dimmed or distractor added, each alone.

Each suite defines its own changes (`muvla.envs.mikasa.appearance`, `muvla.envs.recall.scene`). Physics, places and
targets stay.
"""

from __future__ import annotations

from typing import Literal

from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derive_protocol, require_settable

VERSION = 1
Shift = Literal["camera", "light", "distractor"]


def shifts(base: Protocol, kinds: tuple[Shift, ...] = ("camera", "light", "distractor")) -> Grid:
    """Evaluations with a moved camera, dimmed light or a distractor.

    The grid has the base, and a point per shift.
    """
    require_settable(base, "shift")
    points = [Point(base, "none", (("shift", "none"),))]
    for shift in kinds:
        points.append(Point(derive_protocol(base, shift, VERSION, {"task.shift": shift}), "none", (("shift", shift),)))
    notes = "A change of looks alone, as the task's suite makes it."
    return Grid("shift", VERSION, tuple(points), x="shift", notes=notes)
