"""RecallCount: a lamp blinks n times; touch disc n, counted from the left."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.envs.recall.base import Drawn, Draws, Lengths, RecallTask, Setup
from muvla.envs.recall.colour import SHOWN
from muvla.envs.recall.scene import Disc


@dataclass(frozen=True)
class CountDrawn(Drawn):
    first: int  # step of the cue at which the lamp is first on


@dataclass(frozen=True)
class Count(RecallTask):
    """The lamp is on for one step and off for one step, from a random step of the cue on.

    The cue's length does not depend on n.
    """

    family = "RecallCount"
    instructions = ("Count the blinks and touch that disc.",)

    def least_cue(self, setup: Setup) -> int:
        return 2 * setup.objects - 1

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> CountDrawn:
        target = draws.balanced(setup.objects)
        return CountDrawn(lengths, (target,), draws.integers(lengths.cue - 2 * target))

    def show_cue(self, drawn: CountDrawn, setup: Setup, step: int) -> list[Disc]:
        blink, off = divmod(step - drawn.first, 2)
        is_on = off == 0 and 0 <= blink <= drawn.answer[0]
        return [Disc(SHOWN.x, SHOWN.y, setup.palette[0], SHOWN.radius)] if is_on else []

    def further_of_twin(self, drawn: CountDrawn, setup: Setup) -> list[Disc]:
        """As many small lamps, in a row below the start."""
        return [Disc(-0.8 + 0.3 * i, -0.75, setup.palette[0], 0.13) for i in range(drawn.answer[0] + 1)]

    def count_answers(self, setup: Setup) -> int:
        return setup.objects
