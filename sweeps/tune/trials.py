"""The trials of a tuning as rows, and the rule that chooses a recipe.

A row is one trial of one variant. Its `outcome` is `complete`, `pruned` or `failed`. A pruned trial has no objective:
its cells stopped at a rung, and count nowhere as finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sweeps.tune.space import Dimension, Recipe

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
RULE = (
    "The chosen trial has the best mean success over the tuning's seeds. Ties go to the fewest training frames, then "
    "to the lower value of each tuned field, in the order of `--over`, then to the lower trial number."
)


@dataclass(frozen=True)
class TrialRow:
    """One trial of one variant.

    Attributes:
        number: number of the trial; equal numbers of two variants are the same recipe, except under `tpe`.
        variant: name of the variant.
        outcome: `complete`, `pruned` or `failed`.
        recipe: dotted field → value.
        frames: training frames of a finished cell, B·W·U.
        train: train ids, by seed.
        losses: update of a rung → mean training loss over the seeds.
        success: training seed → success rate; empty unless the trial is complete.
        mean: mean of `success`.
        error: why the trial failed.
    """

    number: int
    variant: str
    outcome: str
    recipe: Recipe
    frames: int
    train: tuple[str, ...]
    losses: dict[int, float] = field(default_factory=dict)
    success: dict[int, float] = field(default_factory=dict)
    mean: float | None = None
    error: str = ""

    def plain(self) -> dict[str, Any]:
        """The row for a line of JSON, without what it lacks."""
        row = {name: value for name, value in asdict(self).items() if value not in ({}, None, "")}
        for name in ("losses", "success"):
            if name in row:
                row[name] = {str(key): value for key, value in row[name].items()}
        return row


def choose(rows: Iterable[TrialRow], space: Sequence[Dimension]) -> TrialRow | None:
    """The chosen trial among one variant's rows, by `RULE`; None if no trial is complete."""

    def rank(row: TrialRow) -> tuple:
        values = tuple(_order(dimension, row.recipe[dimension.name]) for dimension in space)
        return (-row.mean, row.frames, values, row.number)

    return min((row for row in rows if row.outcome == COMPLETE), key=rank, default=None)


def _order(dimension: Dimension, value: Any) -> float:
    """The value itself; for choices that are no numbers, their place in the list."""
    choices = dimension.choices
    if choices is not None and not all(type(choice) in (int, float) for choice in choices):
        return choices.index(value)
    return value
