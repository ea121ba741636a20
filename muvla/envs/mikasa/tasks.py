"""MIKASA-Robo-VLA's tasks, and the facts about each task that are known before the simulator runs.

There are the 23 published environments, nine with 400 steps (with the 23, the suite's first version had 32), and 26
`-Long` environments.

| of the 35 that are not published | steps of the cue | of the delay | step limit |
|---|---|---|---|
| BunchOfColors, -Long: a set of 3, 5 or 7 cubes | 1-5, 10-100 | 1-5, 50-400 | 400, 700 |
| SeqOfColors, ChainOfColors, -Long: one cube after another | 1-5, 10-100 for each | 1-5, 50-400 | 400, 800-1200 |
| Remember*-Long | 10-100 (RememberColor5, 9: 100) | 50-450 | 600 |
| ShellGameShuffle*-Long | 10-100 | 100-400, the shuffle | 600 |
| BlinkCountButtonPress*-Long | 11-290, the blinks | none | 1200 |
| TimedTransfer*-Long | none | none | 600-1200 |

In none of the 35 does the suite hold the arm in cue and delay: every action is executed from the first step on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from muvla.envs.assets import AssetSet
from muvla.envs.mikasa.assets import LAMP, SHELLGAME
from muvla.envs.mikasa.instructions import INSTRUCTIONS


@dataclass(frozen=True)
class MikasaTask:
    """One task.

    family: key of `FAMILIES` and `INSTRUCTIONS`.
    step_limit: as published (μVLA spec 6.1).
    objects: N objects to choose among; None where nothing is chosen.
    expert: a scripted expert exists.
    assets: files that neither the suite nor ManiSkill contains.
    angles: degrees that the suite may draw; an episode's instruction names its angle.
    cue, delay: shortest and longest phase that the suite draws, in steps.
    free: the arm moves in cue and delay too, because the suite has no wrapper that holds the arm.
    steps: the number of steps in the instruction.
    """

    name: str
    family: str
    step_limit: int
    objects: int | None = None
    expert: bool = False
    assets: tuple[AssetSet, ...] = ()
    angles: range | None = None
    cue: tuple[int, int] = (0, 0)
    delay: tuple[int, int] = (0, 0)
    free: bool = False
    steps: int | None = None

    cameras: ClassVar[int] = 2  # base, wrist
    camera: ClassVar[int] = 128  # pixels of both cameras, square
    proprio: ClassVar[int] = 7  # xyz, roll-pitch-yaw, sum of the two finger positions; world frame (μVLA spec 4.4)

    @property
    def chance(self) -> float | None:
        """First-choice accuracy without memory, 1/N. The success rate can exceed 1/N by several touches (spec 6.1).

        None where nothing is chosen, and for `free` tasks: the arm's pose can store the cue, and the next frame shows
        the pose.
        """
        return 1 / self.objects if self.objects and not self.free else None

    @property
    def instruction(self) -> str:
        """The suite's sentence; where episodes have different sentences, one of them."""
        return INSTRUCTIONS[self.family].format(steps=self.steps)

    @property
    def instructions(self) -> tuple[str, ...]:
        """Every sentence that an episode may have."""
        if self.angles is None:
            return (self.instruction,)
        return tuple(self.instruction.replace("45 degrees", f"{angle} degrees") for angle in self.angles)


_SHORT = (1, 5)
_REMEMBER = {
    "RememberColor": {"3": 3, "5": 5, "9": 9},
    "RememberShape": {"3": 3, "5": 5, "9": 9},
    "RememberShapeAndColor": {"3x2": 6, "3x3": 9, "5x3": 15},
}


def _remember() -> list[MikasaTask]:
    return [
        MikasaTask(f"{family}{size}-VLA-v0", family, 25, n, expert=True, cue=_SHORT, delay=_SHORT)
        for family, sizes in _REMEMBER.items()
        for size, n in sizes.items()
    ]


def _shell_game(what: str, expert: bool = True) -> MikasaTask:
    family = f"ShellGame{what}"
    return MikasaTask(f"{family}-VLA-v0", family, 30, 3, expert, assets=(SHELLGAME,), cue=_SHORT)


# Whole degrees from the tolerance of 0.1 rad to a quarter turn, or to an eighth in either direction.
_ANGLES = {"Pos": range(6, 91), "PosNeg": range(-45, 46)}

_PUBLISHED = (
    *_remember(),
    _shell_game("Touch"),
    _shell_game("Push"),
    _shell_game("Pick", expert=False),
    *(MikasaTask(f"Intercept{speed}-VLA-v0", "Intercept", 60, expert=True) for speed in ("Slow", "Medium", "Fast")),
    *(MikasaTask(f"InterceptGrab{speed}-VLA-v0", "InterceptGrab", 60) for speed in ("Slow", "Medium", "Fast")),
    *(MikasaTask(f"RotateLenient{sign}-VLA-v0", "RotateLenient", 60, angles=a) for sign, a in _ANGLES.items()),
    *(MikasaTask(f"RotateStrict{sign}-VLA-v0", "RotateStrict", 90, angles=a) for sign, a in _ANGLES.items()),
    MikasaTask("TakeItBack-VLA-v0", "TakeItBack", 60, expert=True),
)
_COLOURS = 9  # cubes in every task of the families Bunch, Seq and Chain


def _capacity(family: str, limits: tuple[int, int, int], long: bool = False) -> list[MikasaTask]:
    """Tasks with a set, a sequence or a chain of 3, 5 and 7 cubes. A set has no first cube, and so no choice."""
    once, delay = ((10, 100), (50, 400)) if long else (_SHORT, _SHORT)
    return [
        MikasaTask(
            f"{family}{n}{'-Long' if long else ''}-VLA-v0",
            family,
            limit,
            None if family == "BunchOfColors" else _COLOURS,
            cue=once if family == "BunchOfColors" else (n * once[0], n * once[1]),
            delay=delay,
            free=True,
        )
        for n, limit in zip((3, 5, 7), limits, strict=True)
    ]


def _remember_long() -> list[MikasaTask]:
    return [
        MikasaTask(
            f"{family}{size}-Long-VLA-v0",
            family,
            600,
            n,
            delay=(50, 450),
            free=True,
            cue=(100, 100) if f"{family}{size}" in ("RememberColor5", "RememberColor9") else (10, 100),
        )
        for family, sizes in _REMEMBER.items()
        for size, n in sizes.items()
    ]


def _shuffle(family: str, *assets: AssetSet) -> MikasaTask:
    return MikasaTask(
        f"{family}-Long-VLA-v0",
        family,
        600,
        3,
        assets=(SHELLGAME, *assets),
        cue=(10, 100),
        delay=(100, 400),
        free=True,
    )


def _blink(level: str, blinks: tuple[int, int]) -> MikasaTask:
    """The first blink comes after 5 to 50 steps; a blink is on for 3 steps and off for 3 to 5."""
    family = "BlinkCountButtonPress"
    cue = (5 + 6 * blinks[0], 50 + 8 * blinks[1])
    return MikasaTask(f"{family}{level}-Long-VLA-v0", family, 1200, assets=(LAMP,), cue=cue, free=True)


_CAPACITY = (
    *_capacity("BunchOfColors", (400, 400, 400)),
    *_capacity("SeqOfColors", (400, 400, 400)),
    *_capacity("ChainOfColors", (400, 400, 400)),
)
_LONG = (
    *_remember_long(),
    *_capacity("BunchOfColors", (700, 700, 700), long=True),
    *_capacity("SeqOfColors", (800, 1000, 1200), long=True),
    *_capacity("ChainOfColors", (800, 1000, 1200), long=True),
    _shuffle("ShellGameShuffleTouch"),
    _shuffle("ShellGameShuffleColorLampTouch", LAMP),
    *(_blink(level, blinks) for level, blinks in (("Easy", (1, 10)), ("Medium", (10, 20)), ("Hard", (20, 30)))),
    *(
        MikasaTask(f"TimedTransfer{level}-Long-VLA-v0", "TimedTransfer", limit, assets=(LAMP,), free=True, steps=steps)
        for level, limit, steps in (("Easy", 600, 300), ("Medium", 900, 500), ("Hard", 1200, 1000))
    ),
)
MIKASA_TASKS = {task.name: task for task in (*_PUBLISHED, *_CAPACITY, *_LONG)}
# Names by the set of published evaluations: 23, the 32 of the first version, and the long ones.
PUBLISHED, ALL_SHORT, LONG = (
    tuple(task.name for task in tasks) for tasks in (_PUBLISHED, (*_PUBLISHED, *_CAPACITY), _LONG)
)
# The tasks that the published policies were trained on.
TRAINED = (
    "ShellGamePush-VLA-v0",
    "InterceptMedium-VLA-v0",
    "RememberColor5-VLA-v0",
    "TakeItBack-VLA-v0",
    "RememberShapeAndColor3x3-VLA-v0",
)
