"""The recall tasks: families, sizes, defaults and instructions, registered with gymnasium."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

# Steps left for the decision after the longest cue and delay; the expert needs three to reach the farthest disc.
DECISION_STEPS = 10

# By family.
INSTRUCTIONS = {
    "RecallPosition": "Touch the marked disc.",
    "RecallColor": "Touch the disc of the same color.",
}


@dataclass(frozen=True)
class RecallTask:
    """One task. `colours` is the default palette; the mark of RecallPosition has its first colour."""

    family: str
    objects: int  # N
    colours: tuple[str, ...]
    cue: tuple[int, int] = (1, 3)  # steps, uniform
    delay: tuple[int, int] = (1, 2)

    @property
    def name(self) -> str:
        return f"{self.family}{self.objects}-v0"

    @property
    def chance(self) -> float:
        """First-choice accuracy of the best policy without memory that queries at every step."""
        return 1 / self.objects


_POSITION = ("yellow",)
_COLOUR = ("red", "lime", "blue", "yellow", "magenta")

RECALL_TASKS = {
    task.name: task
    for task in (
        RecallTask("RecallPosition", 3, _POSITION),
        RecallTask("RecallPosition", 5, _POSITION),
        RecallTask("RecallColor", 3, _COLOUR[:3]),
        RecallTask("RecallColor", 5, _COLOUR),
    )
}


def step_limit(cue: tuple[int, int], delay: tuple[int, int], blank: tuple[int, int] = (0, 0)) -> int:
    """Most steps of an episode. The limit grows with the phases: a longer delay is never a shorter time to act."""
    return blank[1] + cue[1] + delay[1] + DECISION_STEPS


def register_recall() -> None:
    for name in RECALL_TASKS:
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point="muvla.envs.recall.env:RecallEnv", kwargs={"task": name})
