"""Schedules: the ticks at which an intervention acts.

| text | fires |
|---|---|
| `3`, `cue_end`, `delay_end+2` | once, at this step or this event, with an offset |
| `X..` | from X on |
| `..X` | up to and with X |
| `every(n)` | at the steps 0, n, 2n, … |

Steps count from the episode's start. Where memory ticks less often than the environment steps, a schedule for a step
fires at the first tick at or after this step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from muvla.envs.phases import EVENTS
from muvla.errors import MuvlaError

_POINT = re.compile(rf"(?:(?P<step>\d+)|(?P<event>{'|'.join(EVENTS)})(?P<offset>[+-]\d+)?)")
_EVERY = re.compile(r"every\((\d+)\)")
FORMS = f"@3, @{EVENTS[0]}, @{EVENTS[0]}+2, @X.., @..X or @every(n), with X a step or one of {', '.join(EVENTS)}"


@dataclass(frozen=True)
class Schedule:
    """`number` is a step, the offset from an `event`, or the n of `every`."""

    kind: Literal["at", "from", "until", "every"]
    number: int
    event: str | None = None

    def fires(self, tick: int, events: Mapping[str, int], previous: int | None = None) -> bool:
        """True where the schedule fires.

        Args:
            tick: environment step of the tick.
            events: event → step, of the episode's phases. An event that the episode lacks never comes.
            previous: environment step of the tick before; by default the step before, -1 at the first tick.
        """
        previous = tick - 1 if previous is None else previous
        if self.kind == "every":
            return tick // self.number > previous // self.number
        step = self.step(events)
        if step is None:
            return False
        if self.kind == "at":
            return previous < step <= tick
        return tick >= step if self.kind == "from" else tick <= step

    def step(self, events: Mapping[str, int]) -> int | None:
        """The step that the schedule names; None for an event that the episode lacks, and for `every`."""
        if self.event is None:
            return self.number if self.kind != "every" else None
        return events[self.event] + self.number if self.event in events else None

    def first(self, events: Mapping[str, int]) -> int | None:
        """The first step at which the schedule may fire; None if it never fires."""
        if self.kind == "every":
            return 0
        step = self.step(events)
        if step is None or (step < 0 and self.kind != "from"):
            return None
        return 0 if self.kind == "until" else max(step, 0)

    @property
    def uninterrupted(self) -> bool:
        """True where the schedule fires at every tick once it has fired."""
        return self.kind == "from"

    @property
    def text(self) -> str:
        if self.kind == "every":
            return f"every({self.number})"
        point = str(self.number) if self.event is None else self.event + (f"{self.number:+d}" if self.number else "")
        return {"at": point, "from": f"{point}..", "until": f"..{point}"}[self.kind]


def parse_schedule(text: str) -> Schedule:
    """Reads a schedule. Raises MuvlaError for any other text."""
    if (every := _EVERY.fullmatch(text)) and int(every[1]) > 0:
        return Schedule("every", int(every[1]))
    form = "from" if text.endswith("..") else "until" if text.startswith("..") else "at"
    point = _POINT.fullmatch(text.removesuffix("..") if form == "from" else text.removeprefix(".."))
    if point is None:
        raise MuvlaError(
            "intervention, schedule", got=f"@{text}", expected=FORMS, remedy="write it in one of these forms"
        )
    if point["event"] is None:
        return Schedule(form, int(point["step"]))
    return Schedule(form, int(point["offset"] or 0), point["event"])
