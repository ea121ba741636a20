"""The contract of a recall task: what an episode draws, what its frames show, and which discs are right.

A family is a subclass of `RecallTask` in a file of its own, and one line per task in `muvla.envs.recall.tasks`. The
environment (`muvla.envs.recall.env`) does the rest: phases, the effector, touches and the end of an episode.

Legend: N discs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np

from muvla.config import TaskConfig
from muvla.envs.colours import Colour, check_palette, get_colour
from muvla.envs.phases import Phase
from muvla.envs.recall import scene
from muvla.envs.recall.scene import Disc
from muvla.errors import MuvlaError
from muvla.utils.rng import numpy_rng

Span = tuple[int, int]  # shortest and longest, or fewest and most

HOME = (0.0, -0.25)  # start of the effector
# The discs lie on an arc around the start that is narrower than a semicircle. An L1 policy without memory falls back on
# the median direction, which must lead to a disc: then its touch rate says nothing about recall.
RADIUS, ARC = 0.9, (np.pi * 5 / 6, np.pi / 6)
# The mark in the decision of an observable twin. A decision never looks like a cue: a policy without memory could not
# tell them apart, and would wait.
SHOWN_AGAIN = get_colour("lime")
MOST_OBJECTS = 5  # more discs on the arc would overlap


class Draws(Protocol):
    """The random draws of an episode. The best scores replay an episode's draws with every outcome in turn."""

    def integers(self, count: int) -> int:
        """A number in 0 … count − 1."""

    def permutation(self, count: int) -> tuple[int, ...]:
        """An order of 0 … count − 1."""

    def balanced(self, count: int) -> int:
        """A number in 0 … count − 1 that every `count` consecutive episodes, from a multiple on, have once each."""


class KeyedDraws:
    """Draws as a function of the episode's seed and the task's name."""

    def __init__(self, seed: int, task: str):
        self.seed, self.task = seed, task
        self.rng = numpy_rng(seed, "recall", task)

    def integers(self, count: int) -> int:
        return int(self.rng.integers(count))

    def permutation(self, count: int) -> tuple[int, ...]:
        return tuple(self.rng.permutation(count).tolist())

    def balanced(self, count: int) -> int:
        block, place = divmod(self.seed, count)
        return int(numpy_rng(block, "recall answers", self.task, count).permutation(count)[place])


def draw_between(draws: Draws, span: Span) -> int:
    return span[0] + draws.integers(span[1] - span[0] + 1)


def draw_steps(draws: Draws, span: Span, length: int) -> tuple[int, ...]:
    """Draw different steps of a phase of this length, as many as `span` says and as the phase has."""
    left = list(range(length))
    count = min(draw_between(draws, span), length)
    return tuple(sorted(left.pop(draws.integers(len(left))) for _ in range(count)))


@dataclass(frozen=True)
class Setup:
    """A TaskConfig with the task's default in the place of every None."""

    objects: int  # N
    shown: int  # discs that an episode asks for
    cue: Span
    delay: Span
    blank: Span
    distractors: Span  # blinks in the delay
    moves: Span  # exchanges in the delay
    palette: tuple[Colour, ...]
    observable: bool
    pairs: str | None


@dataclass(frozen=True)
class Lengths:
    """Steps of an episode's phases before the decision."""

    blank: int
    cue: int
    delay: int

    @property
    def total(self) -> int:
        return self.blank + self.cue + self.delay

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step of the episode, and the step within the phase."""
        for phase, length in ((Phase.BLANK, self.blank), (Phase.CUE, self.cue), (Phase.DELAY, self.delay)):
            if step < length:
                return phase, step
            step -= length
        return Phase.DECISION, step


@dataclass(frozen=True)
class Drawn:
    """The truth of an episode; a family adds what its frames show."""

    lengths: Lengths
    answer: tuple[int, ...]  # numbers of the discs to touch, in the expert's order


@dataclass(frozen=True)
class RecallTask(ABC):
    """One task: a family at one size, with the defaults of what a TaskConfig can set."""

    objects: int  # N
    shown: int = 1
    cue: Span = (1, 3)  # steps, uniform
    delay: Span = (1, 2)
    distractors: Span = (0, 0)
    moves: Span = (0, 0)
    colours: tuple[str, ...] = ("yellow",)  # the default palette; the first is the colour of a mark

    family: ClassVar[str]
    instructions: ClassVar[tuple[str, ...]]  # an episode has one of them
    ordered: ClassVar[bool] = True  # several discs must be touched in the answer's order
    further: ClassVar[tuple[str, ...]] = ()  # fields of TaskConfig that this family can set besides COMMON
    COMMON: ClassVar[tuple[str, ...]] = (
        "blank",
        "cue",
        "delay",
        "objects",
        "observable",
        "palette",
        "shift",
        "step_limit",
    )

    @property
    def name(self) -> str:
        return f"{self.family}{self.objects}-v0"

    @property
    def settable(self) -> tuple[str, ...]:
        return tuple(sorted({*self.COMMON, *self.further}))

    def setup(self, config: TaskConfig | None = None) -> Setup:
        """Resolve a configuration. Raises MuvlaError for sizes and phases that the family does not have."""
        config = config or TaskConfig(self.name)
        objects = config.objects or self.objects
        require_setting(2 <= objects <= MOST_OBJECTS, "objects", objects, f"2 to {MOST_OBJECTS} discs")
        names = config.palette or self.colours_of(objects)
        check_palette(self.name, self.colours_of(objects), names)
        setup = Setup(
            objects=objects,
            shown=config.shown or self.shown,
            cue=config.cue or self.cue,
            delay=config.delay or self.delay,
            blank=config.blank or (0, 0),
            distractors=config.distractors or self.distractors,
            moves=config.moves or self.moves,
            palette=tuple(get_colour(name) for name in names),
            observable=bool(config.observable),
            pairs=config.pairs,
        )
        most, least = self.most_shown(setup), self.least_cue(setup)
        require_setting(setup.shown <= most, "shown", setup.shown, f"at most {most} of {objects} discs in {self.name}")
        require_setting(
            setup.cue[0] >= least, "cue", setup.cue, f"at least {least} steps, which the cue of {self.name} takes"
        )
        return setup

    def colours_of(self, objects: int) -> tuple[str, ...]:
        """Names of the default palette at this N."""
        return self.colours

    def most_shown(self, setup: Setup) -> int:
        return 1

    def least_cue(self, setup: Setup) -> int:
        """Fewest steps in which the cue can be shown."""
        return 1

    # --- an episode

    @abstractmethod
    def draw(self, draws: Draws, setup: Setup, lengths: Lengths) -> Drawn:
        """Draw the truth of an episode."""

    def instruction(self, drawn: Drawn) -> str:
        return self.instructions[0]

    @abstractmethod
    def show_cue(self, drawn: Drawn, setup: Setup, step: int) -> list[Disc]:
        """The discs at a step of the cue."""

    def show_delay(self, drawn: Drawn, setup: Setup, step: int) -> list[Disc]:
        """The discs at a step of the delay."""
        return []

    def colours_at_decision(self, drawn: Drawn, setup: Setup) -> dict[int, Colour]:
        """Disc → its colour in the decision; other discs are neutral."""
        return {}

    def colours_of_twin(self, drawn: Drawn, setup: Setup) -> dict[int, Colour]:
        """Disc → its colour in the decision of the observable twin, where the twin colours discs."""
        return {}

    def further_of_twin(self, drawn: Drawn, setup: Setup) -> list[Disc]:
        """Further discs in the decision of the observable twin, which the effector cannot touch."""
        return []

    def shows(self, drawn: Drawn, setup: Setup, step: int, touched: tuple[int, ...] = ()) -> list[Disc]:
        """The discs at a step of the episode.

        Args:
            drawn: the truth of the episode.
            setup: of the episode.
            step: of the episode, blank included.
            touched: discs that are gone, because they were touched on the way to an answer of several discs.
        """
        phase, since = drawn.lengths.at(step)
        if phase is Phase.CUE:
            return self.show_cue(drawn, setup, since)
        if phase is Phase.DELAY:
            return self.show_delay(drawn, setup, since)
        if phase is Phase.BLANK:
            return []
        colours = self.colours_at_decision(drawn, setup)
        further: list[Disc] = []
        if setup.observable:
            colours = colours | self.colours_of_twin(drawn, setup)
            further = self.further_of_twin(drawn, setup)
        return coloured(setup.objects, colours, touched) + further

    def facts(self, drawn: Drawn) -> dict[str, Any]:
        """Further entries of `StepInfo`: identity and places_of, cued, update_step."""
        return {}

    # --- bounds

    @abstractmethod
    def count_answers(self, setup: Setup) -> int:
        """Number of equally likely answers, between which a policy without memory cannot tell."""

    def first_choice(self, setup: Setup) -> float:
        """Share of the discs that may be touched first."""
        return 1 / setup.objects


@cache
def disc_places(objects: int) -> np.ndarray:
    """(N, 2) centres of the discs on the arc, from left to right."""
    angles = np.linspace(*ARC, objects)
    return np.asarray(HOME) + RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def coloured(objects: int, colours: dict[int, Colour], without: tuple[int, ...] = ()) -> list[Disc]:
    """The discs on the arc in these colours, the others neutral."""
    places = disc_places(objects).tolist()
    return [Disc(x, y, colours.get(i, scene.NEUTRAL)) for i, (x, y) in enumerate(places) if i not in without]


def require_setting(ok: bool, field: str, got: Any, expected: str) -> None:
    """Raise MuvlaError for a field of a TaskConfig.

    Args:
        ok: the value fits.
        field: of TaskConfig.
        got: the value.
        expected: the values that fit.
    """
    if not ok:
        raise MuvlaError(
            f"task.{field}", got=got, expected=expected, remedy=f"set task.{field} to {expected}, or leave it out"
        )
