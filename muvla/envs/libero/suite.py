"""The LIBERO suite: its tasks' facts and its protocols (μVLA spec 6.2)."""

from __future__ import annotations

from muvla.config import TaskConfig
from muvla.envs.base import MEMORYVLA_CADENCES, PUBLISHED_REGIMES, ProtocolSpec, Suite, TaskInfo
from muvla.envs.libero.assets import LIBERO
from muvla.envs.libero.env import CAMERA_SIZE, CONVENTIONS, LiberoEnv
from muvla.envs.libero.simulator import backends, render_backend
from muvla.envs.libero.tasks import INITIAL_STATES, LIBERO_TASKS, STEP_LIMITS, LiberoTask

# The four task suites whose mean success is published as "LIBERO".
_FOUR = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


class LiberoSuite(Suite):
    name = "libero"
    assets = (LIBERO,)
    extra = "libero"
    requirements = ("hf-libero==0.1.4", "robosuite==1.4.0", "bddl==1.0.1")
    install = "run `make libero`"

    def tasks(self) -> tuple[str, ...]:
        return tuple(LIBERO_TASKS)

    def info(self, task: str) -> TaskInfo:
        return TaskInfo(
            self.name,
            LIBERO_TASKS[task].instruction,
            CAMERA_SIZE,
            own_process=True,
            conventions=CONVENTIONS,
            cameras=("agentview", "wrist"),
        )

    def step_limit(self, task: TaskConfig) -> int:
        return LIBERO_TASKS[task.name].step_limit

    def make_env(self, task: TaskConfig, image_size: int | None = None) -> LiberoEnv:
        return LiberoEnv(task.name, image_size)

    def backends(self, task: TaskConfig) -> str:
        return backends()

    def renderer(self) -> str:
        backend = render_backend()
        import mujoco
        from OpenGL import GL

        context = mujoco.GLContext(16, 16)
        context.make_current()
        return f"{backend}, {GL.glGetString(GL.GL_RENDERER).decode()}"

    def protocols(self) -> tuple[ProtocolSpec, ...]:
        return (
            *(_published(task, regime) for regime in PUBLISHED_REGIMES for task in LIBERO_TASKS.values()),
            *(_memoryvla(task, cadence) for cadence in MEMORYVLA_CADENCES for task in LIBERO_TASKS.values()),
        )

    def protocol_sets(self) -> dict[str, tuple[str, ...]]:
        sets = {f"{suite.replace('_', '-')}": (suite,) for suite in STEP_LIMITS} | {"libero4": _FOUR}
        tasks = {
            name: [task for suite in suites for task in LIBERO_TASKS.values() if task.suite == suite]
            for name, suites in sets.items()
        }
        return {
            f"{name}-{regime}@1": tuple(_published(task, regime).id for task in members)
            for name, members in tasks.items()
            for regime in PUBLISHED_REGIMES
        } | {
            f"memoryvla-{name}{cadence}@1": tuple(_memoryvla(task, cadence).id for task in members)
            for name, members in tasks.items()
            for cadence in MEMORYVLA_CADENCES
        }


def _published(task: LiberoTask, regime: str) -> ProtocolSpec:
    """The published evaluation of one task: episode i starts from the task's initial state i.

    One difference is declared: the state's number seeds the simulator before every reset; the published code seeds once
    per task. There are five slots, because a simulator's process takes up to 2 GB.
    """
    settings = {"seed": 0, "step_limit": task.step_limit, "slots": 5, **PUBLISHED_REGIMES[regime]}
    name = f"{task.name.replace('_', '-')}-{regime}"
    return ProtocolSpec(name, TaskConfig(task.name), episodes=INITIAL_STATES, settings=settings)


def _memoryvla(task: LiberoTask, cadence: str) -> ProtocolSpec:
    """MemoryVLA's evaluation of one task (M 6): 8 of 16 actions open loop, and images as JPEG files of quality 95.

    Episode i starts from the task's initial state i, as in `_published`; the published code seeds once, with 7.
    """
    spec = _published(task, "ol8")
    settings = spec.settings | {"tick": "env_step", "jpeg": 95, **MEMORYVLA_CADENCES[cadence]}
    return ProtocolSpec(
        f"memoryvla-{task.name.replace('_', '-')}{cadence}", spec.task, spec.episodes, settings=settings
    )
