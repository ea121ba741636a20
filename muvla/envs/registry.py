"""From a TaskConfig to an environment, and what is known of a task before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gymnasium

from muvla.config import TaskConfig
from muvla.envs import mikasa
from muvla.envs.instructions import INSTRUCTIONS
from muvla.envs.libero import simulator as libero
from muvla.envs.libero.env import CAMERA_SIZE as LIBERO_CAMERA
from muvla.envs.libero.env import make_libero
from muvla.envs.libero.tasks import LIBERO_TASKS, STEP_LIMITS
from muvla.envs.maniskill import MANISKILL_TASKS, make_maniskill
from muvla.envs.mikasa import MIKASA_TASKS, make_mikasa
from muvla.envs.mikasa.appearance import colours as mikasa_colours
from muvla.envs.mikasa.families import FAMILIES
from muvla.envs.recall.env import CAMERA_SIZE as RECALL_CAMERA
from muvla.envs.recall.env import RecallEnv
from muvla.envs.recall.tasks import RECALL_TASKS
from muvla.envs.recall.tasks import step_limit as recall_limit
from muvla.envs.workers import WorkerEnv
from muvla.errors import MuvlaError


@dataclass(frozen=True)
class TaskInfo:
    suite: str  # recall, mikasa, libero, maniskill, bridge
    chance: float | None  # first-choice accuracy of a policy without memory; None where nothing is chosen
    own_process: bool  # one environment per process (simulators with global state)
    camera: int  # pixels, square: what its cameras give where nothing else is asked for
    instruction: str  # where every episode has its own, one of them
    expert: bool  # whether demonstrations can be collected
    angles: range | None = None  # degrees, one of which the instruction of an episode names

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every one that an episode may have."""
        if self.angles is None:
            return (self.instruction,)
        return tuple(self.instruction.replace("45 degrees", f"{angle} degrees") for angle in self.angles)


def task_info(name: str) -> TaskInfo:
    """Raises MuvlaError for an unknown task."""
    if name in RECALL_TASKS:
        task = RECALL_TASKS[name]
        return TaskInfo("recall", task.chance, False, RECALL_CAMERA, INSTRUCTIONS[task.family], True)
    if name in MIKASA_TASKS:
        task = MIKASA_TASKS[name]
        return TaskInfo("mikasa", task.chance, True, task.camera, task.instruction, task.expert, task.angles)
    if name in LIBERO_TASKS:
        return TaskInfo("libero", None, True, LIBERO_CAMERA, LIBERO_TASKS[name].instruction, False)
    if name in MANISKILL_TASKS:
        task = MANISKILL_TASKS[name]
        return TaskInfo(task.suite, None, True, task.camera, task.instruction, task.expert)
    known = ", ".join([*RECALL_TASKS, *MIKASA_TASKS, *MANISKILL_TASKS, *(f"{suite}-0, -1, …" for suite in STEP_LIMITS)])
    raise MuvlaError("task.name", got=name, expected=f"one of {known}", remedy="correct the name")


def settable(task: str) -> tuple[str, ...]:
    """The fields of a TaskConfig, but `physics`, that a task has a place for."""
    suite = task_info(task).suite
    if suite == "recall":
        return ("blank", "cue", "delay", "palette", "shift", "step_limit")
    return mikasa.settable(task) if suite == "mikasa" else ()


def step_limit(task: TaskConfig) -> int:
    """Most steps of an episode: what is set, or the task's own, which grows with its longest phases by its suite's
    rule."""
    if task.step_limit is not None:
        return task.step_limit
    suite = task_info(task.name).suite
    if suite == "recall":
        own = RECALL_TASKS[task.name]
        return recall_limit(task.cue or own.cue, task.delay or own.delay) + (task.blank or (0, 0))[1]
    if suite == "libero":
        return LIBERO_TASKS[task.name].step_limit
    if task.name in MANISKILL_TASKS:
        return MANISKILL_TASKS[task.name].step_limit
    known = MIKASA_TASKS[task.name]
    lengths = {name: span for name in ("cue", "delay") if (span := getattr(task, name)) is not None}
    return known.step_limit + FAMILIES[known.family].more_steps(lengths)


def colours(task: str) -> tuple[str, ...]:
    """The palette that a task comes with; empty where it cannot be set."""
    if task in RECALL_TASKS:
        return RECALL_TASKS[task].colours
    return mikasa_colours(MIKASA_TASKS[task]) if task in MIKASA_TASKS else ()


def backends(task: TaskConfig) -> str | None:
    """Physics and render backend that a task runs with here; None where no simulator is involved."""
    if task_info(task.name).suite == "libero":
        return libero.backends()
    known = (MIKASA_TASKS | MANISKILL_TASKS).get(task.name)
    return mikasa.backends(task, known.assets) if known else None


def longest_phases(task: TaskConfig) -> int:
    """Steps of the longest blank, cue and delay that an episode may have. Raises MuvlaError for an unknown task."""
    task_info(task.name)
    known = RECALL_TASKS.get(task.name) or MIKASA_TASKS.get(task.name)
    blank = task.blank[1] if task.blank else 0
    return blank + sum((getattr(task, phase) or getattr(known, phase))[1] for phase in ("cue", "delay") if known)


def make_env(task: TaskConfig, image_size: int | None = None) -> gymnasium.Env:
    """A new environment in this process; frames come at `image_size` pixels, None leaves the camera's own."""
    if task_info(task.name).suite == "mikasa":
        return make_mikasa(task, image_size)
    if task_info(task.name).suite == "libero":
        return make_libero(task, image_size)
    if task.name in MANISKILL_TASKS:
        return make_maniskill(task, image_size)
    if task.physics is not None:
        raise MuvlaError("task.physics", got=task.physics, expected=f"null for {task.name}", remedy="leave it out")
    return RecallEnv(task.name, task.cue, task.delay, task.palette, image_size, task.blank, task.shift, task.step_limit)


def open_env(task: TaskConfig, image_size: int | None = None) -> gymnasium.Env:
    """`make_env`, in a process of its own for simulators that need one."""
    if task_info(task.name).own_process:
        return WorkerEnv(partial(make_env, task, image_size))
    return make_env(task, image_size)


def open_blind(task: TaskConfig) -> gymnasium.Env:
    """`open_env` for whoever looks at no picture: MIKASA-Robo on CPU physics takes none. The environment says so in its
    provenance."""
    if task_info(task.name).suite == "mikasa" and task.physics != "gpu":
        return WorkerEnv(partial(make_mikasa, task, frames=False))
    return open_env(task)
