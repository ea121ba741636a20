"""The 23 published environments of MIKASA-Robo-VLA: what is known of each before the simulator runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MikasaTask:
    name: str
    family: str  # of muvla.envs.mikasa.families and, where its instruction is constant, of INSTRUCTIONS
    step_limit: int  # as published (μVLA spec 6.1)
    objects: int | None = None  # N, that a choice is made among; None where nothing is chosen
    expert: bool = False  # whether there is a scripted one
    mug: bool = False  # whether it needs an asset that comes with neither the suite nor ManiSkill
    angles: range | None = None  # degrees that the suite may draw, one of which an episode's instruction names

    @property
    def chance(self) -> float | None:
        """First-choice accuracy without memory, 1/N; the success rate of several touches lies above (spec 6.1)."""
        return 1 / self.objects if self.objects else None


def _remember(what: str, **objects: int) -> list[MikasaTask]:
    family = f"Remember{what}"
    return [MikasaTask(f"{family}{size[1:]}-VLA-v0", family, 25, n, expert=True) for size, n in objects.items()]


# From its tolerance of 0.1 rad to a quarter turn, or to an eighth in either direction, in whole degrees.
_ANGLES = {"Pos": range(6, 91), "PosNeg": range(-45, 46)}

_TASKS = (
    *_remember("Color", _3=3, _5=5, _9=9),
    *_remember("Shape", _3=3, _5=5, _9=9),
    *_remember("ShapeAndColor", _3x2=6, _3x3=9, _5x3=15),
    MikasaTask("ShellGameTouch-VLA-v0", "ShellGameTouch", 30, 3, expert=True, mug=True),
    MikasaTask("ShellGamePush-VLA-v0", "ShellGamePush", 30, 3, expert=True, mug=True),
    MikasaTask("ShellGamePick-VLA-v0", "ShellGamePick", 30, 3, mug=True),
    *(MikasaTask(f"Intercept{speed}-VLA-v0", "Intercept", 60, expert=True) for speed in ("Slow", "Medium", "Fast")),
    *(MikasaTask(f"InterceptGrab{speed}-VLA-v0", "InterceptGrab", 60) for speed in ("Slow", "Medium", "Fast")),
    *(MikasaTask(f"RotateLenient{sign}-VLA-v0", "RotateLenient", 60, angles=a) for sign, a in _ANGLES.items()),
    *(MikasaTask(f"RotateStrict{sign}-VLA-v0", "RotateStrict", 90, angles=a) for sign, a in _ANGLES.items()),
    MikasaTask("TakeItBack-VLA-v0", "TakeItBack", 60, expert=True),
)
MIKASA_TASKS = {task.name: task for task in _TASKS}
# What the published policies were trained on.
TRAINED = (
    "ShellGamePush-VLA-v0", "InterceptMedium-VLA-v0", "RememberColor5-VLA-v0", "TakeItBack-VLA-v0",
    "RememberShapeAndColor3x3-VLA-v0",
)  # fmt: skip
