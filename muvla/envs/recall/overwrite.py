"""RecallOverwrite: a second disc is marked in the delay; the instruction says whether the first or the last counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muvla.envs.recall.base import Drawn, Draws, Lengths, RecallTask, Setup, coloured
from muvla.envs.recall.scene import Colour, Disc


@dataclass(frozen=True)
class OverwriteDrawn(Drawn):
    first: int  # marked in the cue
    last: int  # marked at one step of the delay; another disc
    at: int  # this step
    last_counts: bool


@dataclass(frozen=True)
class Overwrite(RecallTask):
    """Both marks have the first colour of the palette. The observable twin shows the last mark in the second colour."""

    family = "RecallOverwrite"
    instructions = ("Touch the initial marked disc.", "Touch the final marked disc.")  # of one length in tokens

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> OverwriteDrawn:
        last_counts, target = divmod(draws.balanced(2 * setup.objects), setup.objects)
        other = (target + 1 + draws.integers(setup.objects - 1)) % setup.objects
        first, last = (other, target) if last_counts else (target, other)
        return OverwriteDrawn(lengths, (target,), first, last, draws.integers(lengths.delay), bool(last_counts))

    def instruction(self, drawn: OverwriteDrawn) -> str:
        return self.instructions[drawn.last_counts]

    def show_cue(self, drawn: OverwriteDrawn, setup: Setup, step: int) -> list[Disc]:
        return coloured(setup.objects, {drawn.first: setup.palette[0]})

    def show_delay(self, drawn: OverwriteDrawn, setup: Setup, step: int) -> list[Disc]:
        return coloured(setup.objects, {drawn.last: setup.palette[0]}) if step == drawn.at else []

    def colours_of_twin(self, drawn: OverwriteDrawn, setup: Setup) -> dict[int, Colour]:
        return {drawn.first: setup.palette[0], drawn.last: setup.palette[1]}

    def facts(self, drawn: OverwriteDrawn) -> dict[str, Any]:
        step = drawn.lengths.blank + drawn.lengths.cue + drawn.at
        return {"cued": drawn.first, "update_step": step}

    def count_answers(self, setup: Setup) -> int:
        return setup.objects
