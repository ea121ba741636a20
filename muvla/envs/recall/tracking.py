"""RecallTracking: one disc is marked; in the delay the discs, all alike, change places; touch the marked disc.

In the delay all discs are covered, so that a delay does not look like a decision. An exchange takes one step. Its frame
shows two neighbours on the way, one behind the other, and the next frame shows them in each other's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from muvla.envs.recall import scene
from muvla.envs.recall.base import (
    ARC,
    HOME,
    RADIUS,
    SHOWN_AGAIN,
    Drawn,
    Draws,
    Lengths,
    RecallTask,
    Setup,
    coloured,
    draw_steps,
)
from muvla.envs.recall.scene import Colour, Disc

APART = 0.25  # of the two discs on the way, along the radius, from the arc


@dataclass(frozen=True)
class TrackingDrawn(Drawn):
    marked: int  # place of the marked disc in the cue
    exchanges: tuple[tuple[int, int], ...]  # (step of the delay, left one of the two places)


@dataclass(frozen=True)
class Tracking(RecallTask):
    """A disc's number is its place: the answer is the place in which the marked disc ends."""

    family = "RecallTracking"
    instructions = ("Touch the marked disc.",)
    further = ("moves",)

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> TrackingDrawn:
        target = draws.balanced(setup.objects)
        steps = draw_steps(draws, setup.moves, lengths.delay)
        exchanges = tuple((step, draws.integers(setup.objects - 1)) for step in steps)
        marked = follow(target, [left for _, left in reversed(exchanges)])
        return TrackingDrawn(lengths, (target,), marked, exchanges)

    def show_cue(self, drawn: TrackingDrawn, setup: Setup, step: int) -> list[Disc]:
        return coloured(setup.objects, {drawn.marked: setup.palette[0]})

    def show_delay(self, drawn: TrackingDrawn, setup: Setup, step: int) -> list[Disc]:
        moving = [left for at, left in drawn.exchanges if at == step]
        covered = dict.fromkeys(range(setup.objects), scene.COVERED)
        if not moving:
            return coloured(setup.objects, covered)
        resting = coloured(setup.objects, covered, without=(moving[0], moving[0] + 1))
        return resting + _on_the_way(setup.objects, moving[0])

    def colours_of_twin(self, drawn: TrackingDrawn, setup: Setup) -> dict[int, Colour]:
        return {drawn.answer[0]: SHOWN_AGAIN}

    def facts(self, drawn: TrackingDrawn) -> dict[str, Any]:
        facts: dict[str, Any] = {"cued": drawn.marked}
        if drawn.exchanges:
            facts["update_step"] = drawn.lengths.blank + drawn.lengths.cue + drawn.exchanges[-1][0]
        return facts

    def count_answers(self, setup: Setup) -> int:
        return setup.objects


def follow(place: int, exchanges: Iterable[int]) -> int:
    """The place of a disc after exchanges of the places (left, left + 1)."""
    for left in exchanges:
        if place in (left, left + 1):
            place = 2 * left + 1 - place
    return place


def _on_the_way(objects: int, left: int) -> list[Disc]:
    angle = np.linspace(*ARC, objects)[left : left + 2].mean()
    direction = np.array([np.cos(angle), np.sin(angle)])
    places = [np.asarray(HOME) + (RADIUS + apart) * direction for apart in (-APART, APART)]
    return [Disc(float(x), float(y), scene.COVERED) for x, y in places]
