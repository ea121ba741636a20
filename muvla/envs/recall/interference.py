"""RecallInterference: one disc is marked; in the delay discs blink in another colour, which must not be remembered."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.envs.recall.base import Drawn, Draws, Lengths, Setup, coloured, draw_steps
from muvla.envs.recall.position import Position
from muvla.envs.recall.scene import Disc


@dataclass(frozen=True)
class InterferenceDrawn(Drawn):
    blinks: tuple[tuple[int, int], ...]  # (step of the delay, disc)


@dataclass(frozen=True)
class Interference(Position):
    """The mark has the first colour of the palette, and a blink the second."""

    family = "RecallInterference"
    instructions = ("Touch the marked disc.",)
    further = ("distractors",)

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> InterferenceDrawn:
        target = draws.balanced(setup.objects)
        steps = draw_steps(draws, setup.distractors, lengths.delay)
        return InterferenceDrawn(lengths, (target,), tuple((step, draws.integers(setup.objects)) for step in steps))

    def show_delay(self, drawn: InterferenceDrawn, setup: Setup, step: int) -> list[Disc]:
        blinking = {disc: setup.palette[1] for at, disc in drawn.blinks if at == step}
        return coloured(setup.objects, blinking) if blinking else []
