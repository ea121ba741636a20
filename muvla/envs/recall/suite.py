"""The recall suite: its tasks' facts, its rule for step limits, and its protocols."""

from __future__ import annotations

from typing import Any

from muvla.config import TaskConfig
from muvla.envs.base import PUBLISHED_REGIMES, ProtocolSpec, Suite, TaskInfo
from muvla.envs.conventions import Conventions
from muvla.envs.recall.env import CAMERA_SIZE, RecallEnv
from muvla.envs.recall.tasks import INSTRUCTIONS, RECALL_TASKS, step_limit

# First episode seed for the search of hyperparameters. Its episodes are disjoint from those of every evaluation.
SEARCH_SEED = 3_141_592_653

_SHORT_NAMES = {
    "position3": "RecallPosition3-v0",
    "position5": "RecallPosition5-v0",
    "color3": "RecallColor3-v0",
    "color5": "RecallColor5-v0",
}


class RecallSuite(Suite):
    name = "recall"

    def tasks(self) -> tuple[str, ...]:
        return tuple(RECALL_TASKS)

    def info(self, task: str) -> TaskInfo:
        facts = RECALL_TASKS[task]
        return TaskInfo(
            suite=self.name,
            instruction=INSTRUCTIONS[facts.family],
            camera=CAMERA_SIZE,
            chance=facts.chance,
            choices=facts.objects,
            ends_at_choice=True,
            expert=True,
            cue=facts.cue,
            delay=facts.delay,
            settable=("blank", "cue", "delay", "palette", "shift", "step_limit"),
            colours=facts.colours,
            conventions=Conventions(environment=task, action="delta", frame="world", units="normalized"),
        )

    def step_limit(self, task: TaskConfig) -> int:
        facts = RECALL_TASKS[task.name]
        return step_limit(task.cue or facts.cue, task.delay or facts.delay, task.blank or (0, 0))

    def make_env(self, task: TaskConfig, image_size: int | None = None) -> RecallEnv:
        return RecallEnv(
            task.name, task.cue, task.delay, task.palette, image_size, task.blank, task.shift, task.step_limit
        )

    def protocols(self) -> tuple[ProtocolSpec, ...]:
        position3 = "RecallPosition3-v0"
        return (
            *(_spec(f"recall-{name}-rh", task) for name, task in _SHORT_NAMES.items()),
            _spec("recall-position3-ol4", position3, regime="open_loop", h=4, tick="call"),
            _spec("recall-position3-search", position3, seed=SEARCH_SEED),
            # The mark appears after up to three blank steps, so that the first tick need not show it. Cue and delay
            # have one length, so that every episode has donors in the same phases, of its target and of another.
            ProtocolSpec(
                "recall-position3-blank-rh", TaskConfig(position3, cue=(2, 2), delay=(2, 2), blank=(0, 3)), episodes=200
            ),
            *(_spec(f"recall-{name}-ol8", task, **PUBLISHED_REGIMES["ol8"]) for name, task in _SHORT_NAMES.items()),
        )


def _spec(name: str, task: str, **settings: Any) -> ProtocolSpec:
    return ProtocolSpec(name, TaskConfig(task), episodes=200, settings=settings)
