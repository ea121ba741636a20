"""RecallPosition: one disc is marked; touch it."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.envs.recall.base import SHOWN_AGAIN, Drawn, Draws, Lengths, RecallTask, Setup, coloured
from muvla.envs.recall.scene import Colour, Disc


@dataclass(frozen=True)
class Position(RecallTask):
    family = "RecallPosition"
    instructions = ("Touch the marked disc.",)

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> Drawn:
        return Drawn(lengths, (draws.integers(setup.objects),))

    def show_cue(self, drawn: Drawn, setup: Setup, step: int) -> list[Disc]:
        return coloured(setup.objects, {drawn.answer[0]: setup.palette[0]})

    def colours_of_twin(self, drawn: Drawn, setup: Setup) -> dict[int, Colour]:
        return {drawn.answer[0]: SHOWN_AGAIN}

    def count_answers(self, setup: Setup) -> int:
        return setup.objects
