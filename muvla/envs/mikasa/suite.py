"""The MIKASA-Robo suite: its tasks' facts, its rule for step limits, and its protocols (μVLA spec 6.1)."""

from __future__ import annotations

import re
from dataclasses import replace

from muvla.config import TaskConfig
from muvla.envs.base import MEMORYVLA_CADENCES, PUBLISHED_REGIMES, ProtocolSpec, Suite, TaskInfo
from muvla.envs.mikasa.appearance import colours
from muvla.envs.mikasa.assets import LAMP, SHELLGAME
from muvla.envs.mikasa.env import MikasaEnv
from muvla.envs.mikasa.families import FAMILIES
from muvla.envs.mikasa.simulator import PANDA, backends
from muvla.envs.mikasa.tasks import ALL_SHORT, LONG, MIKASA_TASKS, PUBLISHED, TRAINED

# Named sets of tasks, with the first version of the suite (32) and the five that the published policies train on.
TASK_SETS = {"mikasa5": TRAINED, "mikasa23": PUBLISHED, "mikasa32": ALL_SHORT, "mikasa-long": LONG}

# MemoryVLA's five tasks, with the phases and step limits of its evaluation (M 6): cue and delay have five steps.
_FIVE = (5, 5)
_COLOUR = {"cue": _FIVE, "delay": _FIVE, "step_limit": 60}
MEMORYVLA_TASKS = (
    TaskConfig("ShellGameTouch-VLA-v0", cue=_FIVE, step_limit=90, physics="gpu"),
    TaskConfig("InterceptMedium-VLA-v0", step_limit=90, physics="gpu"),
    *(TaskConfig(f"RememberColor{n}-VLA-v0", **_COLOUR, physics="gpu") for n in (3, 5, 9)),
)
# Under control the policy is queried at every step.
_CADENCES = MEMORYVLA_CADENCES | {"-rh": {"regime": "receding", "h": 1}}


class MikasaSuite(Suite):
    name = "mikasa"
    assets = (SHELLGAME, LAMP)
    extra = "sim"
    requirements = ("sapien", "mikasa-robo-suite==1.0.0")
    install = "run `make sim`"

    def tasks(self) -> tuple[str, ...]:
        return tuple(MIKASA_TASKS)

    def info(self, task: str) -> TaskInfo:
        facts = MIKASA_TASKS[task]
        # Where nothing holds the arm, longer phases are another task, with another step limit.
        lengths = () if facts.free else tuple(FAMILIES[facts.family].settable)
        palette = colours(facts)
        return TaskInfo(
            suite=self.name,
            instruction=facts.instruction,
            camera=facts.camera,
            cameras=("base", "wrist"),
            instructions=facts.instructions,
            chance=facts.chance,
            choices=facts.objects,
            moves_before_decision=facts.free,
            expert=facts.expert,
            own_process=True,
            cue=facts.cue,
            delay=facts.delay,
            settable=(*lengths, *(["palette"] if palette else []), "shift", "step_limit", "physics"),
            colours=palette,
            conventions=replace(PANDA, environment=task),
        )

    def step_limit(self, task: TaskConfig) -> int:
        facts = MIKASA_TASKS[task.name]
        return facts.step_limit + FAMILIES[facts.family].more_steps(_lengths(task))

    def make_env(self, task: TaskConfig, image_size: int | None = None) -> MikasaEnv:
        return _make(task, image_size)

    def make_blind_env(self, task: TaskConfig) -> MikasaEnv:
        """Without images on CPU physics only: on a GPU, taking images is part of the physics (spec 6.1)."""
        return _make(task, frames=task.physics == "gpu")

    def backends(self, task: TaskConfig) -> str:
        return backends(task, MIKASA_TASKS[task.name].assets)

    def renderer(self) -> str:
        env = MikasaEnv("RememberColor3-VLA-v0")
        frame = env.reset(seed=0)[0]["images"]
        return f"{env.render_backend} rendered {frame.shape} mean {frame.mean():.1f}"

    def protocols(self) -> tuple[ProtocolSpec, ...]:
        task = TaskConfig("RememberColor3-VLA-v0")
        quick = {"slots": 2, "image_size": 64}
        return (
            ProtocolSpec("mikasa-remember-color3-quick-rh", task, episodes=30, settings=quick),
            ProtocolSpec(
                "mikasa-remember-color3-rh",
                TaskConfig("RememberColor3-VLA-v0", physics="gpu"),
                episodes=100,
                settings={"slots": 2},
            ),
            *(_published(name, regime) for regime in PUBLISHED_REGIMES for name in (*ALL_SHORT, *LONG)),
            *(_memoryvla(task, cadence) for cadence in _CADENCES for task in MEMORYVLA_TASKS),
        )

    def protocol_sets(self) -> dict[str, tuple[str, ...]]:
        return {
            f"{name}-{regime}@1": tuple(_published(task, regime).id for task in tasks)
            for name, tasks in TASK_SETS.items()
            for regime in PUBLISHED_REGIMES
        } | {
            f"memoryvla-mikasa5{cadence}@1": tuple(_memoryvla(task, cadence).id for task in MEMORYVLA_TASKS)
            for cadence in _CADENCES
        }


def _make(task: TaskConfig, image_size: int | None = None, frames: bool = True) -> MikasaEnv:
    return MikasaEnv(
        task.name,
        image_size,
        sim_backend=task.physics or "cpu",
        palette=task.palette,
        lengths=_lengths(task),
        shift=task.shift,
        limit=task.step_limit,
        frames=frames,
    )


def _lengths(task: TaskConfig) -> dict[str, tuple[int, int]]:
    """The ranges of phase lengths that a TaskConfig sets."""
    return {name: span for name in ("cue", "delay") if (span := getattr(task, name)) is not None}


def _published(task: str, regime: str) -> ProtocolSpec:
    """The published evaluation (spec 6.1), and the same for tasks without one.

    The 100 episodes are the published ones where physics runs on a GPU, at the cameras' size.
    """
    name = _short_name(task)
    return ProtocolSpec(
        name=f"mikasa-{name}-{regime}",
        task=TaskConfig(task, physics="gpu"),
        episodes=100,
        version=2 if (name, regime) == ("remember-color3", "rh") else 1,  # version 1 had two slots
        settings={"slots": 16, **PUBLISHED_REGIMES[regime]},
    )


def _memoryvla(task: TaskConfig, cadence: str) -> ProtocolSpec:
    """MemoryVLA's evaluation (M 6): seeds 1 to 100, chunks of four Δ-pose actions open loop.

    One difference is declared: MemoryVLA evaluates the suite's earlier environments, in which nothing holds the arm in
    cue and delay.
    """
    open_loop = {"regime": "open_loop", "h": 4, "seed": 1, "slots": 16}
    settings = open_loop | _CADENCES[cadence]
    return ProtocolSpec(f"memoryvla-{_short_name(task.name)}{cadence}", task, episodes=100, settings=settings)


def _short_name(task: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", task.removesuffix("-VLA-v0")).lower()
