"""The recall tasks, their rule for step limits, and their registration with gymnasium."""

from __future__ import annotations

import gymnasium

from muvla.envs.recall.base import RecallTask, Setup
from muvla.envs.recall.capacity import Capacity
from muvla.envs.recall.colour import COLOURS, ColourRecall
from muvla.envs.recall.count import Count
from muvla.envs.recall.interference import Interference
from muvla.envs.recall.overwrite import Overwrite
from muvla.envs.recall.position import Position
from muvla.envs.recall.sequence import Sequence
from muvla.envs.recall.tracking import Tracking

# Steps left for each touch after the longest cue and delay; the expert needs three to reach the farthest disc.
DECISION_STEPS = 10

RECALL_TASKS: dict[str, RecallTask] = {
    task.name: task
    for task in (
        Position(3),
        Position(5),
        ColourRecall(3, colours=COLOURS[:3]),
        ColourRecall(5, colours=COLOURS),
        Interference(3, distractors=(1, 2), colours=("yellow", "blue")),
        Count(3, cue=(5, 6)),
        Overwrite(3, colours=("yellow", "blue")),
        Tracking(3, moves=(1, 2)),
        Capacity(5, shown=2),
        Sequence(3, shown=2, cue=(2, 4)),
    )
}


def step_limit(setup: Setup) -> int:
    """Most steps of an episode. The limit grows with the phases: a longer delay is never a shorter time to act."""
    return setup.blank[1] + setup.cue[1] + setup.delay[1] + DECISION_STEPS * setup.shown


def register_recall() -> None:
    for name in RECALL_TASKS:
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point="muvla.envs.recall.env:RecallEnv", kwargs={"task": name})
