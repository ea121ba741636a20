"""The contract of a suite of environments: tasks, environments, protocols, and facts that are known before a run.

A new benchmark is a subclass of `Suite` in one file and one line in `muvla.envs.registry.SUITES`, or an entry point of
another package, or an import path. `muvla.envs.conformance` checks a suite; docs/extending/suite.md shows one.

Legend: V cameras, h×w image in pixels, Q proprio dim, A action dim.
"""

# Without `from __future__ import annotations`: StepInfo's required entries are known from evaluated annotations only.
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired, TypedDict

import gymnasium
import numpy as np

from muvla.config import TaskConfig
from muvla.envs.assets import AssetSet
from muvla.envs.conventions import NOTHING_STATED, Conventions
from muvla.envs.phases import Phase

# The regimes of the published evaluations (μVLA spec 6): a query at every step, and eight actions open loop with one
# memory write for all eight.
PUBLISHED_REGIMES: dict[str, dict[str, Any]] = {"rh": {}, "ol8": {"regime": "open_loop", "h": 8, "tick": "call"}}

# MemoryVLA's published evaluations write the memory once per query and count queries as time (M 6). Under `-matched`,
# the memory is written at every step, and time is counted in steps, as in training.
MEMORYVLA_CADENCES: dict[str, dict[str, Any]] = {"": {"tick": "call", "clock": "call"}, "-matched": {}}

# `StepInfo.choice` before a choice is made, and in tasks where nothing is chosen.
NO_CHOICE = -1


@dataclass(frozen=True)
class TaskInfo:
    """The facts about a task that are known before an environment exists. Studies, protocols and probes check them.

    suite: name of the suite; a study evaluates a policy on tasks of the suite that it was trained on.
    instruction: the sentence that the policy receives. Where episodes have different sentences, one of these.
    camera: side of a frame in pixels, where no other size is asked for; frames are square.
    instructions: every sentence that an episode may have; () means `instruction` alone. Prompts are padded to the
        longest one.
    choices: objects that can be chosen, numbered from 0; None where nothing is chosen, or where the suite does not say.
    chance: first-choice accuracy that no policy without memory exceeds in expectation, if it is queried at every step.
        None where nothing is chosen, and where no such bound is known.
    ends_at_choice: the first choice ends the episode, so `chance` bounds the success rate too.
    moves_before_decision: actions are executed in cue and delay too, so the robot's pose can store the cue.
    random_actions: actions uniform in [-1, 1] are a meaningful baseline; not where an action is in metres and radians.
    expert: `StepInfo.expert_action` exists, so that demonstrations can be collected.
    own_process: the simulator keeps global state, so every environment gets a process of its own.
    cue, delay: shortest and longest phase in steps; (0, 0) where the task has no such phase.
    settable: fields of a TaskConfig that the task can change; all others must stay None.
    colours: names of the objects' colours in the order of a palette; () where the palette is fixed.
    cameras: names of the robot's cameras in the order of the images; () where they have none.
    conventions: meaning of the environment's actions; datasets that state others cannot train a policy for the task.
    """

    suite: str
    instruction: str
    camera: int
    instructions: tuple[str, ...] = ()
    chance: float | None = None
    ends_at_choice: bool = False
    moves_before_decision: bool = False
    random_actions: bool = True
    expert: bool = False
    own_process: bool = False
    cue: tuple[int, int] = (0, 0)
    delay: tuple[int, int] = (0, 0)
    settable: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    conventions: Conventions = NOTHING_STATED
    choices: int | None = None
    cameras: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.instructions:
            object.__setattr__(self, "instructions", (self.instruction,))


@dataclass(frozen=True)
class Bounds:
    """The highest expected scores of a policy without memory, if it is queried at every step.

    None where no bound is known.
    """

    choice: float | None  # first-choice accuracy
    success: float | None


@dataclass(frozen=True)
class ProtocolSpec:
    """An evaluation that a suite declares, as plain data. `muvla.evaluation.catalog` makes a `Protocol` of the data.

    name, version: the protocol's id is `name@version`. A protocol that was used never changes: raise the version.
    settings: further fields of a `Protocol` by name (seed, step_limit, regime, h, tick, slots, ...).
    """

    name: str
    task: TaskConfig
    episodes: int
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


class StepInfo(TypedDict):
    """The dict `info` that reset and step of every environment return.

    All fields describe the state that the returned observation shows. `muvla.envs.conformance` checks them.
    """

    instruction: str  # the sentence of this episode
    phase: Phase  # of the observation, and so of the action that answers it
    # Number of the cued object, and of the first object chosen in the decision phase. The numbers mean the same thing.
    # `target` is None where nothing is cued; `choice` is NO_CHOICE before the choice, and where nothing is chosen.
    target: int | None
    choice: int
    success: bool  # in this state; a rollout remembers the first success
    cue_length: int  # steps of the episode's phases, known at reset; 0 where the episode has no such phase
    delay_length: int
    blank_length: NotRequired[int]  # steps before the cue in which nothing is shown; 0 where absent
    # (A,) float32, the action that the simulator applied in the step just taken; zeros at reset. In no-op phases it
    # differs from the policy's action.
    executed_action: np.ndarray
    # (A,) float32, the expert's answer to this observation, in no-op phases too; needed where `TaskInfo.expert`.
    expert_action: NotRequired[np.ndarray | None]
    # For tasks whose `target` is a place and whose cue is something else, for example a colour: the cue's number, and
    # for every such number the place of its object in this episode. A donor's cue is translated with them.
    identity: NotRequired[int | None]
    places_of: NotRequired[tuple[int, ...] | None]
    # For tasks in which the delay changes what must be known: the number of the object that the cue shows, and the step
    # of the episode that shows the last change.
    cued: NotRequired[int]
    update_step: NotRequired[int]
    # For tasks in which several objects must be chosen, and only for them: the numbers of the objects to choose, in the
    # expert's order (`target` is the first); the choices so far; and the number of right choices before a wrong one.
    targets: NotRequired[tuple[int, ...]]
    choices: NotRequired[tuple[int, ...]]
    right: NotRequired[int]


class Suite(ABC):
    """A benchmark: its tasks, its environments, and what the rest of muvla must know of them.

    A suite's module must import without the simulator and without torch: environment processes and studies import all
    suites. Import the simulator where an environment is made. A suite has no state; the registry makes one instance.
    """

    name: ClassVar[str]  # in rows and reports; other suites must not have it
    # Files that the simulator needs and no package contains; `muvla assets` fetches and checks them.
    assets: ClassVar[tuple[AssetSet, ...]] = ()
    # The optional dependency group of muvla, further requirements that the group cannot name, and the remedy where one
    # is missing. `muvla doctor` reads them; a suite without a simulator needs none.
    extra: ClassVar[str] = ""
    requirements: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = ""

    @abstractmethod
    def tasks(self) -> Sequence[str]:
        """Names of all tasks. Names must not contain `:` or `/`, and no other suite may have them."""

    @abstractmethod
    def info(self, task: str) -> TaskInfo:
        """Facts about one of `tasks`."""

    @abstractmethod
    def step_limit(self, task: TaskConfig) -> int:
        """Most steps of an episode where `task.step_limit` is None.

        The limit must grow with the longest phases that `task` sets: a longer delay must not be a shorter time to act.
        """

    @abstractmethod
    def make_env(self, task: TaskConfig, image_size: int | None = None) -> gymnasium.Env:
        """Make a new environment in this process.

        Observations are {"images": (V, h, w, 3) uint8 with the base camera first, "proprio": (Q,) float32}. Actions are
        (A,) float32 in [-1, 1]; whatever else arrives is refused (`muvla.envs.actions.clipped`). `info` is a StepInfo.
        An episode is a function of `reset(seed=...)` alone, so that an evaluation can be repeated: draw nothing from
        global generators (`muvla.utils.rng`). `terminated` means that the task ended the episode, `truncated` that the
        step limit did.

        Optional attributes: `step_limit`; `provenance`, a JSON dict stored beside every result; `snapshot()` and
        `restore(snapshot)`, with which evaluations share the beginnings of episodes.

        Args:
            task: one of `tasks`; fields that are not `settable` are None (the registry checks them).
            image_size: side of the frames in pixels; None keeps the camera's size.
        """

    def make_blind_env(self, task: TaskConfig) -> gymnasium.Env:
        """Make an environment for policies that look at no image, for example experts.

        Override where rendering can be left out without changing anything else of the episode.
        """
        return self.make_env(task)

    def bounds(self, task: TaskConfig) -> Bounds:
        """Scores that no policy without memory exceeds in expectation.

        Override where the settings of a task change `TaskInfo.chance`.
        """
        info = self.info(task.name)
        return Bounds(info.chance, info.chance if info.ends_at_choice else None)

    def backends(self, task: TaskConfig) -> str | None:
        """Names of the physics and the renderer of this task on this machine, and the content of its assets.

        None without a simulator. Results under different backends are never mixed. Raises MuvlaError where the
        simulator cannot run: evaluations ask before they open an environment.
        """
        return None

    def renderer(self) -> str:
        """Render something and return what rendered it. `muvla doctor` calls this in a process of its own.

        Raises any exception where nothing can be rendered. "" means that no renderer is involved.
        """
        return ""

    def protocols(self) -> Sequence[ProtocolSpec]:
        """The evaluations of this suite. Ids must be unique among all suites."""
        return ()

    def protocol_sets(self) -> Mapping[str, Sequence[str]]:
        """Ids of named sets of `protocols`, over which a success rate is averaged with equal weights."""
        return {}
