"""The recall suite: its tasks' facts, its rule for step limits, its bounds, and its protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from muvla.config import TaskConfig
from muvla.envs.base import PUBLISHED_REGIMES, Bounds, ProtocolSpec, Suite, TaskInfo
from muvla.envs.conventions import Conventions
from muvla.envs.recall.env import CAMERA_SIZE, RecallEnv
from muvla.envs.recall.tasks import RECALL_TASKS, step_limit

# First episode seed for the search of hyperparameters. Its episodes are disjoint from those of every evaluation.
SEARCH_SEED = 3_141_592_653
# Blocks of EVEN episodes in which every answer is equally frequent. The tasks with balanced draws have them from every
# multiple of EVEN on; for the others, these are the first such blocks from EVEN_SEED on.
EVEN, EVEN_SEED = 240, 4_242_480_000

_SHORT_NAMES = {
    "position3": "RecallPosition3-v0",
    "position5": "RecallPosition5-v0",
    "color3": "RecallColor3-v0",
    "color5": "RecallColor5-v0",
}
_GRADED = {
    "interference3": "RecallInterference3-v0",
    "count3": "RecallCount3-v0",
    "overwrite3": "RecallOverwrite3-v0",
    "tracking3": "RecallTracking3-v0",
    "capacity5": "RecallCapacity5-v0",
    "sequence3": "RecallSequence3-v0",
}
# Even blocks of the tasks without balanced draws: name of the protocol → task, first seed.
_EVEN_BLOCKS = {
    "position3-even": (TaskConfig("RecallPosition3-v0"), 4_242_480_819),
    "color3-even": (TaskConfig("RecallColor3-v0"), 4_242_481_181),
    "color3-trained-pairs": (TaskConfig("RecallColor3-v0", pairs="train"), 4_242_481_181),
    "color3-held-out-pairs": (TaskConfig("RecallColor3-v0", pairs="held_out"), 4_242_481_181),
}
# From one thing to remember to several, with operations on what is remembered in between.
_LADDER = (
    "position3-even",
    "interference3",
    "color3-even",
    "count3",
    "overwrite3",
    "tracking3",
    "capacity5",
    "sequence3",
)


class RecallSuite(Suite):
    name = "recall"

    def tasks(self) -> tuple[str, ...]:
        return tuple(RECALL_TASKS)

    def info(self, task: str) -> TaskInfo:
        facts = RECALL_TASKS[task]
        return TaskInfo(
            suite=self.name,
            instruction=facts.instructions[0],
            camera=CAMERA_SIZE,
            cameras=("base", "wrist"),
            instructions=facts.instructions,
            choices=facts.objects,
            chance=self.bounds(TaskConfig(task)).choice,
            ends_at_choice=True,
            expert=True,
            cue=facts.cue,
            delay=facts.delay,
            settable=facts.settable,
            colours=facts.colours,
            conventions=Conventions(environment=task, action="delta", frame="world", units="normalized"),
        )

    def bounds(self, task: TaskConfig) -> Bounds:
        """Exact: `muvla.envs.recall.bounds` finds the same numbers by enumeration."""
        facts = RECALL_TASKS[task.name]
        setup = facts.setup(task)
        if setup.observable:
            return Bounds(1.0, 1.0)
        return Bounds(facts.first_choice(setup), 1 / facts.count_answers(setup))

    def step_limit(self, task: TaskConfig) -> int:
        return step_limit(RECALL_TASKS[task.name].setup(task))

    def make_env(self, task: TaskConfig, image_size: int | None = None) -> RecallEnv:
        changes = {field.name: getattr(task, field.name) for field in fields(task) if field.name != "name"}
        del changes["physics"]  # no recall task can set it
        return RecallEnv(task.name, image_size, **changes)

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
            *_even_protocols(),
        )

    def protocol_sets(self) -> Mapping[str, Sequence[str]]:
        return {
            "recall-ladder@1": [f"recall-{name}-rh@1" for name in _LADDER],
            "recall-ladder-observable@1": [f"recall-{name}-rh-observable@1" for name in _LADDER],
        }


def observable_twin(spec: ProtocolSpec) -> ProtocolSpec:
    """The protocol on the fully observable twin of its task, with the same episodes."""
    return replace(spec, name=f"{spec.name}-observable", task=replace(spec.task, observable=True))


def _spec(name: str, task: str, **settings: Any) -> ProtocolSpec:
    return ProtocolSpec(name, TaskConfig(task), episodes=200, settings=settings)


def _even_protocols() -> list[ProtocolSpec]:
    """Both published regimes on blocks with equally frequent answers, and the observable twins of the ladder."""
    tasks = _EVEN_BLOCKS | {name: (TaskConfig(task), EVEN_SEED) for name, task in _GRADED.items()}
    specs = [
        ProtocolSpec(f"recall-{name}-{regime}", task, EVEN, settings=settings | {"seed": seed})
        for regime, settings in PUBLISHED_REGIMES.items()
        for name, (task, seed) in tasks.items()
    ]
    return specs + [observable_twin(spec) for spec in specs if spec.name in {f"recall-{name}-rh" for name in _LADDER}]
