"""Time to learn: success at declared updates of a training, on episodes that no other evaluation of the study uses.

A training stores its weights after the declared updates, and the sweep evaluates them after the training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from muvla.config import Cell
from muvla.config.validation import is_whole
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol

METRIC = "time_to_learn"  # its name among the metrics of contrasts


@dataclass(frozen=True)
class TimeToLearn:
    """The evaluations of every cell during its training.

    Attributes:
        protocol: an evaluation with a block of episode seeds that no other evaluation of the study uses.
        updates: updates after which the weights are evaluated, growing; a cell of fewer updates leaves later ones out.
    """

    protocol: Protocol
    updates: tuple[int, ...]

    def __post_init__(self):
        valid = all(is_whole(update) and update >= 1 for update in self.updates)
        if not self.updates or not valid or list(self.updates) != sorted(set(self.updates)):
            raise MuvlaError(
                "time_to_learn.updates",
                got=self.updates,
                expected="one or more whole numbers from 1 on, each larger than the one before",
                remedy="list the updates in order, for example (100, 200, 400)",
            )
        if self.protocol.update is not None:
            raise MuvlaError(
                "time_to_learn.protocol",
                got=f"{self.protocol.id} of the weights after update {self.protocol.update}",
                expected="a protocol without an update: the field `updates` names the updates",
                remedy="leave `update` out of the protocol",
            )

    @cached_property
    def protocols(self) -> dict[int, Protocol]:
        """Update → the protocol that evaluates the weights after it."""
        name = self.protocol.name
        return {update: replace(self.protocol, name=f"{name}-u{update}", update=update) for update in self.updates}

    def updates_of(self, cell: Cell) -> tuple[int, ...]:
        """The updates that a cell's training has."""
        return tuple(update for update in self.updates if update <= cell.effective_budget.updates)

    def require_possible(self, where: str, cells: Iterable[Cell], others: Iterable[Protocol]) -> None:
        """Raises MuvlaError if no training has one of the updates, or if another evaluation has one of the episodes.

        Args:
            where: the study, for errors.
            cells: the cells of the study.
            others: the protocols of its other evaluations.
        """
        longest = max(cell.effective_budget.updates for cell in cells)
        if self.updates[0] > longest:
            raise MuvlaError(
                f"{where}, time_to_learn.updates",
                got=self.updates,
                expected=f"an update that a training has, at most {longest}",
                remedy=f"name updates up to {longest}",
            )
        first, last = self.protocol.seed, self.protocol.seed + self.protocol.episodes - 1
        for other in others:
            if max(first, other.seed) <= min(last, other.seed + other.episodes - 1):
                raise MuvlaError(
                    f"{where}, time_to_learn.protocol",
                    got=f"episodes {first}…{last}, some of which {other.id} plays too",
                    expected="a block of episode seeds that no other evaluation of the study uses",
                    remedy=f"set the protocol's seed to {other.seed + other.episodes} or another free block, and "
                    "give the protocol a name",
                )

    def plan_line(self, cells: Iterable[Cell]) -> str:
        """A sentence of the plan: updates, episodes, and the number of evaluations and stored weights."""
        evaluations = sum(len(self.updates_of(cell)) for cell in cells)
        return (
            f"Time to learn: success after updates {', '.join(map(str, self.updates))} on {self.protocol.episodes} "
            f"episodes of {self.protocol.id}; evaluations of stored weights in all: {evaluations}"
        )
