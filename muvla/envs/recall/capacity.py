"""RecallCapacity: several of the discs are marked at once; touch all of them, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

from muvla.envs.recall.base import SHOWN_AGAIN, Drawn, Draws, Lengths, RecallTask, Setup, coloured
from muvla.envs.recall.scene import Colour, Disc


@dataclass(frozen=True)
class Capacity(RecallTask):
    family = "RecallCapacity"
    instructions = ("Touch all marked discs.",)
    ordered = False
    further = ("shown",)

    def most_shown(self, setup: Setup) -> int:
        return setup.objects - 1  # with all of them marked, nothing is to be remembered

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> Drawn:
        sets = list(combinations(range(setup.objects), setup.shown))
        return Drawn(lengths, sets[draws.balanced(len(sets))])

    def show_cue(self, drawn: Drawn, setup: Setup, step: int) -> list[Disc]:
        return coloured(setup.objects, dict.fromkeys(drawn.answer, setup.palette[0]))

    def colours_of_twin(self, drawn: Drawn, setup: Setup) -> dict[int, Colour]:
        return dict.fromkeys(drawn.answer, SHOWN_AGAIN)

    def count_answers(self, setup: Setup) -> int:
        return comb(setup.objects, setup.shown)

    def first_choice(self, setup: Setup) -> float:
        return setup.shown / setup.objects
