"""RecallSequence: discs are marked one after the other; touch them in this order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import perm

from muvla.envs.colours import get_colour
from muvla.envs.recall.base import Drawn, Draws, Lengths, RecallTask, Setup, coloured
from muvla.envs.recall.scene import Colour, Disc

# Colours of the first, second, … disc in the observable twin.
RANKS = tuple(get_colour(name) for name in ("lime", "blue", "magenta", "red", "cyan"))


@dataclass(frozen=True)
class Sequence(RecallTask):
    """The cue's steps are divided among the marks: step s of a cue of c steps shows mark ⌊s·n/c⌋."""

    family = "RecallSequence"
    instructions = ("Touch the discs in the order shown.",)
    further = ("shown",)

    def most_shown(self, setup: Setup) -> int:
        return setup.objects

    def least_cue(self, setup: Setup) -> int:
        return setup.shown

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> Drawn:
        orders = list(permutations(range(setup.objects), setup.shown))
        return Drawn(lengths, orders[draws.balanced(len(orders))])

    def show_cue(self, drawn: Drawn, setup: Setup, step: int) -> list[Disc]:
        mark = drawn.answer[step * setup.shown // drawn.lengths.cue]
        return coloured(setup.objects, {mark: setup.palette[0]})

    def colours_of_twin(self, drawn: Drawn, setup: Setup) -> dict[int, Colour]:
        return dict(zip(drawn.answer, RANKS, strict=False))

    def count_answers(self, setup: Setup) -> int:
        return perm(setup.objects, setup.shown)
