"""The conventions of actions: the facts without which the numbers of an action mean nothing.

A task states the conventions of its environment (`TaskInfo.conventions`), and a dataset those of its recording
(`EpisodeStore.conventions`). A training requires that both agree. A fact that nobody states is None, is shown as
`unknown`, and agrees with everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from muvla.errors import MuvlaError, unknown_name

UNKNOWN = "unknown"
CHOICES = {
    "action": ("delta", "absolute", "velocity"),
    "frame": ("world", "base", "hand", "joints"),
    "gripper": ("positive_opens", "positive_closes"),
    "units": ("normalized", "metric"),
}


@dataclass(frozen=True)
class Conventions:
    """How the actions of a dataset or of a task are meant. None is unknown.

    environment: id of the environment in its simulator.
    control_mode: the simulator's name of the controller, for example pd_ee_delta_pose.
    action: `delta` moves relative to the present pose, `absolute` names a pose, `velocity` a speed.
    frame: frame of the arm's numbers; `joints` for joint space.
    gripper: meaning of the larger gripper number in the last action dimension.
    units: `normalized` to the controller's range, or `metric`: metres and radians.
    fps: control rate in steps per second.
    """

    environment: str | None = None
    control_mode: str | None = None
    action: str | None = None
    frame: str | None = None
    gripper: str | None = None
    units: str | None = None
    fps: float | None = None

    def __post_init__(self):
        for name, value in asdict(self).items():
            if value is not None:
                _require_valid(name, value)

    @property
    def stated(self) -> dict[str, Any]:
        """The known facts by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def shown(self) -> dict[str, Any]:
        """Every fact by name; an unknown fact is the word `unknown`."""
        return {name: UNKNOWN if value is None else value for name, value in asdict(self).items()}

    def replaced_by(self, other: Conventions) -> Conventions:
        """Returns these conventions with the facts that `other` knows in place of their own."""
        return Conventions(**(self.stated | other.stated))

    def disagreements(self, other: Conventions) -> dict[str, tuple[Any, Any]]:
        """Returns the facts that both know and that differ: name → (value here, value of `other`)."""
        mine, theirs = self.stated, other.stated
        return {name: (mine[name], theirs[name]) for name in mine if name in theirs and mine[name] != theirs[name]}


def common_conventions(stated: Sequence[Conventions]) -> Conventions:
    """Returns the facts that all of at least one member state alike."""
    first, *others = [conventions.stated for conventions in stated]
    return Conventions(**{name: v for name, v in first.items() if all(other.get(name) == v for other in others)})


FACTS = tuple(field.name for field in fields(Conventions))
NOTHING_STATED = Conventions()


def read_conventions(data: Any, where: str) -> Conventions:
    """Returns the conventions of a JSON object; keys of later versions and the word `unknown` state nothing.

    Raises MuvlaError, with `where`, for another kind of value.
    """
    if not isinstance(data, Mapping):
        raise MuvlaError(
            where,
            got=f"{type(data).__name__} in place of conventions",
            expected=f"an object of {', '.join(FACTS)}",
            remedy="import or collect the dataset again",
        )
    return Conventions(**{name: data[name] for name in FACTS if data.get(name) not in (None, UNKNOWN)})


def _require_valid(name: str, value: Any) -> None:
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise unknown_name(f"conventions.{name}", value, (*CHOICES[name], UNKNOWN))
    elif name == "fps":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and 0 < value <= 1e6):
            raise MuvlaError(
                "conventions.fps", got=value, expected="steps per second, above 0", remedy="omit a rate that is unknown"
            )
    elif not (isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200):
        raise MuvlaError(
            f"conventions.{name}",
            got=value,
            expected="a name of 1 to 200 printable characters",
            remedy=f"omit {name} where it is unknown",
        )
