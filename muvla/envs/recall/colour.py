"""RecallColor: a colour is shown; touch the disc of this colour. The binding of colours to places is remembered.

With `task.pairs`, an episode's layout (an order of the colours) and cued colour come from one of two halves of all
pairs: `train` or `held_out`. The first colour is cued in even layouts in `train` and in odd layouts in `held_out`, the
other colours the other way round. Every colour, place, layout, and colour at a place is in both halves, equally often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muvla.envs.recall.base import Drawn, Draws, Lengths, RecallTask, Setup, require_setting
from muvla.envs.recall.scene import Colour, Disc

COLOURS = ("red", "lime", "blue", "yellow", "magenta")
SHOWN = Disc(0.0, 0.5, (0, 0, 0), 0.35)  # the cue
SHOWN_BELOW = Disc(-0.75, -0.75, (0, 0, 0))  # the same in the decision of the observable twin


@dataclass(frozen=True)
class ColourDrawn(Drawn):
    colour_at: tuple[int, ...]  # place → colour
    cued: int  # colour


@dataclass(frozen=True)
class ColourRecall(RecallTask):
    family = "RecallColor"
    instructions = ("Touch the disc of the same color.",)
    further = ("pairs",)

    def setup(self, config=None) -> Setup:
        setup = super().setup(config)
        require_setting(
            setup.pairs is None or setup.objects >= 3, "objects", setup.objects, "at least 3 with task.pairs"
        )
        return setup

    def colours_of(self, objects: int) -> tuple[str, ...]:
        return COLOURS[:objects]

    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> ColourDrawn:
        layout = draws.permutation(setup.objects)
        cued = draws.integers(setup.objects)
        if setup.pairs and is_held_out(layout, cued) != (setup.pairs == "held_out"):
            layout = _exchange_others(layout, cued)
        return ColourDrawn(lengths, (layout.index(cued),), layout, cued)

    def show_cue(self, drawn: ColourDrawn, setup: Setup, step: int) -> list[Disc]:
        return [Disc(SHOWN.x, SHOWN.y, setup.palette[drawn.cued], SHOWN.radius)]

    def colours_at_decision(self, drawn: ColourDrawn, setup: Setup) -> dict[int, Colour]:
        return {place: setup.palette[colour] for place, colour in enumerate(drawn.colour_at)}

    def further_of_twin(self, drawn: ColourDrawn, setup: Setup) -> list[Disc]:
        return [Disc(SHOWN_BELOW.x, SHOWN_BELOW.y, setup.palette[drawn.cued])]

    def facts(self, drawn: ColourDrawn) -> dict[str, Any]:
        places = tuple(drawn.colour_at.index(colour) for colour in range(len(drawn.colour_at)))
        return {"identity": drawn.cued, "places_of": places}

    def count_answers(self, setup: Setup) -> int:
        return setup.objects


def is_held_out(layout: tuple[int, ...], cued: int) -> bool:
    """True for a pair of the half that `task.pairs: train` leaves out."""
    inversions = sum(layout[i] > layout[j] for j in range(len(layout)) for i in range(j))
    return (inversions % 2 == 1) == (cued == 0)


def _exchange_others(layout: tuple[int, ...], cued: int) -> tuple[int, ...]:
    """Exchange the last two colours that are not cued: the layout's parity changes, the target does not."""
    i, j = [place for place, colour in enumerate(layout) if colour != cued][-2:]
    changed = list(layout)
    changed[i], changed[j] = changed[j], changed[i]
    return tuple(changed)
