"""What an evaluation is: a frozen, versioned object whose hash stands in every row."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from muvla.config import TaskConfig
from muvla.config.serialization import ADDED_LATER, content_hash
from muvla.envs.libero.tasks import INITIAL_STATES, LIBERO_TASKS
from muvla.envs.maniskill.tasks import MANISKILL_TASKS, ManiSkillTask
from muvla.envs.mikasa.tasks import ALL_SHORT, LONG, MIKASA_TASKS, PUBLISHED, TRAINED
from muvla.envs.registry import longest_phases, task_info
from muvla.errors import MuvlaError

# First episode seed of the published evaluations (μVLA spec 6.1): episode i is reset with seed BASE + i.
BASE = 4_242_424_242

Regime = Literal["receding", "open_loop"]
Tick = Literal["env_step", "call"]
Beyond = Literal["refuse", "hold_last"]
REGIMES, TICKS, BEYONDS = get_args(Regime), get_args(Tick), get_args(Beyond)


@dataclass(frozen=True)
class Protocol:
    name: str
    version: int
    task: TaskConfig
    episodes: int
    seed: int = BASE
    step_limit: int | None = None  # None: the task's own
    # `receding`: query at every step, execute the chunk's first action. `open_loop`: execute h actions per query.
    regime: Regime = "receding"
    h: int = 1
    # When memory is read and written: at every environment step or at every query. Differs under `open_loop` only.
    tick: Tick = "env_step"
    # The episode ends at its first success. A task that ends at the first choice anyway is not changed by it.
    break_at_success: bool = True
    image_size: int | None = None  # pixels; None leaves the camera's own
    # Episodes per forward pass. Part of the protocol, because rows are equal bit for bit only at one batch shape.
    slots: int = 50
    # An h past the policy's chunk: refused, or the chunk's last action is executed again for what it lacks.
    beyond: Beyond = field(default="refuse", metadata=ADDED_LATER)

    def __post_init__(self):
        for name, known in (("regime", REGIMES), ("tick", TICKS), ("beyond", BEYONDS)):
            if getattr(self, name) not in known:
                raise MuvlaError(
                    f"protocol.{name}", got=getattr(self, name), expected=" or ".join(known), remedy="correct it"
                )
        for name in ("version", "episodes", "h", "slots", "step_limit", "image_size"):
            value = getattr(self, name)
            if not isinstance(value, int) and not (value is None and name in ("step_limit", "image_size")):
                raise MuvlaError(f"protocol.{name}", got=value, expected="a whole number", remedy="correct it")
            if value is not None and value < 1:
                raise MuvlaError(f"protocol.{name}", got=value, expected="≥ 1", remedy="correct it")
        if self.regime == "receding" and self.h != 1:
            raise MuvlaError("protocol.h", got=self.h, expected="1 under receding", remedy="correct it")
        if self.regime == "receding" and self.beyond != "refuse":
            raise MuvlaError(
                "protocol.beyond",
                got=self.beyond,
                expected="refuse under receding: no chunk runs out",
                remedy="leave it out, or set regime to open_loop",
            )
        if self.seed < 0 or self.seed + self.episodes > 2**32:
            raise MuvlaError(
                "protocol.seed",
                got=f"{self.seed} + {self.episodes} episodes",
                expected="seeds in [0, 2^32)",
                remedy="simulators seed 32-bit generators: choose another block",
            )

    @property
    def id(self) -> str:
        """`recall-position3-rh@1`; two protocols of one id must be equal (tests/golden/protocols.json holds the
        hashes)."""
        return f"{self.name}@{self.version}"

    @property
    def hash(self) -> str:
        return content_hash(self)


def _recall(name: str, task: str, **changes) -> Protocol:
    return Protocol(name=name, version=1, task=TaskConfig(task), episodes=200, **changes)


def _mikasa(name: str, task: TaskConfig, **changes) -> Protocol:
    return Protocol(name=name, version=1, task=task, slots=2, **changes)


# The published regimes: receding horizon, and eight actions open loop with a memory that is written once for all eight.
_PUBLISHED: dict[str, dict[str, Any]] = {"rh": {}, "ol8": {"regime": "open_loop", "h": 8, "tick": "call"}}


def _libero(suite: str, regime: str) -> tuple[Protocol, ...]:
    """As published (spec 6.2), one protocol per task: episode i is the task's initial state i; but its number seeds the
    simulator before every reset, where the published code seeds once per task. Five slots, because a simulator's
    process takes up to 2 GB."""
    return tuple(
        Protocol(
            name=f"{task.name.replace('_', '-')}-{regime}",
            version=1,
            task=TaskConfig(task.name),
            seed=0,
            episodes=INITIAL_STATES,
            step_limit=task.step_limit,
            slots=5,
            **_PUBLISHED[regime],
        )
        for task in LIBERO_TASKS.values()
        if task.suite == suite
    )


def _published(task: str, regime: str) -> Protocol:
    """The published evaluation of a MIKASA task (spec 6.1), and of one that was not: the same 100 episodes only where
    physics runs on a GPU, at the cameras' own size."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", task.removesuffix("-VLA-v0")).lower()
    version = 2 if (name, regime) == ("remember-color3", "rh") else 1  # its first one had two slots
    return Protocol(
        name=f"mikasa-{name}-{regime}",
        version=version,
        task=TaskConfig(task, physics="gpu"),
        episodes=100,
        slots=16,
        **_PUBLISHED[regime],
    )


def _maniskill(task: ManiSkillTask, regime: str) -> Protocol:
    """ManiSkill's own: the seeds of MIKASA's, physics on the CPU. A twin's episode i is its arrangement i, of which
    SimplerEnv evaluates the first 24."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", task.name.removesuffix("-v1")).lower()
    episodes = {"seed": 0, "episodes": 24} if task.suite == "bridge" else {"episodes": 100}
    return Protocol(
        name=f"{task.suite}-{name}-{regime}",
        version=1,
        task=TaskConfig(task.name),
        slots=16,
        **episodes,
        **_PUBLISHED[regime],
    )


# Named sets of protocols, one per task: what a suite's success rate is the unweighted mean over.
SETS = {
    f"{suite.replace('_', '-')}-{regime}@1": _libero(suite, regime)
    for suite in dict.fromkeys(task.suite for task in LIBERO_TASKS.values())
    for regime in _PUBLISHED
}
SETS |= {
    f"libero4-{regime}@1": tuple(
        one for suite in ("spatial", "object", "goal", "10") for one in SETS[f"libero-{suite}-{regime}@1"]
    )
    for regime in _PUBLISHED
}
SETS |= {
    f"mikasa{name}-{regime}@1": tuple(_published(task, regime) for task in tasks)
    for name, tasks in (("5", TRAINED), ("23", PUBLISHED), ("32", ALL_SHORT), ("-long", LONG))
    for regime in _PUBLISHED
}
SETS |= {
    f"{name}-{regime}@1": tuple(_maniskill(task, regime) for task in MANISKILL_TASKS.values() if task.suite == suite)
    for name, suite in (("maniskill12", "maniskill"), ("bridge4", "bridge"))
    for regime in _PUBLISHED
}

# A block of episodes that only the search for a recipe looks at, disjoint from every evaluation.
SEARCH_SEED = 3_141_592_653

PROTOCOLS = {
    protocol.id: protocol
    for protocol in (
        _recall("recall-position3-rh", "RecallPosition3-v0"),
        _recall("recall-position3-ol4", "RecallPosition3-v0", regime="open_loop", h=4, tick="call"),
        _recall("recall-position3-search", "RecallPosition3-v0", seed=SEARCH_SEED),
        # The mark appears after up to three blank steps, so that the first tick need not have seen it. One cue and one
        # delay, so that every episode has donors in the same phases, of another target and of its own.
        Protocol(
            "recall-position3-blank-rh",
            1,
            TaskConfig("RecallPosition3-v0", cue=(2, 2), delay=(2, 2), blank=(0, 3)),
            episodes=200,
        ),
        _recall("recall-position5-rh", "RecallPosition5-v0"),
        _recall("recall-color3-rh", "RecallColor3-v0"),
        _recall("recall-color5-rh", "RecallColor5-v0"),
        *(
            _recall(f"recall-{name}-ol8", task, **_PUBLISHED["ol8"])
            for name, task in (
                ("position3", "RecallPosition3-v0"),
                ("position5", "RecallPosition5-v0"),
                ("color3", "RecallColor3-v0"),
                ("color5", "RecallColor5-v0"),
            )
        ),
        _mikasa("mikasa-remember-color3-quick-rh", TaskConfig("RememberColor3-VLA-v0"), episodes=30, image_size=64),
        _mikasa("mikasa-remember-color3-rh", TaskConfig("RememberColor3-VLA-v0", physics="gpu"), episodes=100),
        *(one for several in SETS.values() for one in several),
    )
}


def get_protocol(id: str) -> Protocol:
    if id not in PROTOCOLS:
        raise _unknown(id, PROTOCOLS)
    return PROTOCOLS[id]


def get_protocols(id: str) -> tuple[Protocol, ...]:
    """Those of a set, or the one of that id."""
    if id not in SETS and id not in PROTOCOLS:
        raise _unknown(id, [*PROTOCOLS, *SETS])
    return SETS.get(id) or (PROTOCOLS[id],)


def require_decisions(several: Iterable[Protocol]) -> None:
    """Raises MuvlaError, before any episode runs, if a protocol may end one before it can be decided: it would measure
    nothing. A task's own step limit is longer than its phases."""
    for one in several:
        phases = longest_phases(one.task)
        if one.step_limit is not None and one.step_limit <= phases:
            raise MuvlaError(
                f"protocol {one.id}: step_limit",
                got=one.step_limit,
                expected=f"more than the {phases} steps that may pass before the decision of {one.task.name}",
                remedy="raise it, or shorten the phases (task.cue, task.delay)",
            )


def _unknown(id: str, known: Iterable[str]) -> MuvlaError:
    near = difflib.get_close_matches(id, known, n=8, cutoff=0.3)
    return MuvlaError("protocol", got=id, expected=f"one of {', '.join(near or known)}", remedy="correct the id")


def chance(protocol: Protocol) -> float | None:
    """First-choice accuracy that no policy without memory can exceed in expectation; None where nothing is chosen, and
    where there is no such bound (`unbounded`)."""
    return task_info(protocol.task.name).chance if protocol.h == 1 else None


def unbounded(protocol: Protocol) -> str:
    """Why no accuracy bounds the choices of a policy without memory; empty where `chance` does. A chunk that is issued
    while the cue is shown and executed open loop still acts when the choice is made, and an arm that moves while the
    cue is shown can keep it in its pose."""
    if chance(protocol) is not None:
        return ""
    known = MIKASA_TASKS.get(protocol.task.name)
    reasons = ["chunks run open loop"] * (protocol.h > 1)
    return " and ".join([*reasons, *["the arm moves in cue and delay"] * bool(known and known.free)])
