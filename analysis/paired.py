"""Rates and paired differences of one trained policy: the same episodes with and without an intervention.

docs/causality.md defines every quantity. Episodes are never pooled over training seeds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from muvla.evaluation.records import EpisodeRow, acted
from muvla.stats import newcombe, wilson

CONFIDENCE = 0.90  # two-sided: one bound alone errs in 5 of 100
MARGIN = 0.10  # a smaller difference is null
QUANTITIES = ("choice", "own", "success", "follow")
QUANTITY_TITLES = {
    "choice": "first-touch accuracy given a touch",
    "own": "target-first rate, of all episodes",
    "success": "success",
    "follow": "donor-following rate",
}


@dataclass(frozen=True)
class Difference:
    """A quantity's rates over `n` pairs, and the second minus the first with its interval."""

    n: int
    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def is_null(self) -> bool:
        return self.low > -MARGIN and self.high < MARGIN

    @property
    def text(self) -> str:
        """For example "-0.63 [-0.69, -0.56] n 200"."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] n {self.n}" if self.n else "–"


@dataclass(frozen=True)
class Rate:
    """A quantity's rate over the `n` episodes of one condition that count, with its interval."""

    n: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.n if self.n else math.nan

    @property
    def text(self) -> str:
        """For example "0.33 [0.28, 0.39] n 200"."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n {self.n}" if self.n else "–"


def has_quantity(row: EpisodeRow, quantity: str, donor_target: int | None) -> bool | None:
    """True or False for an episode that counts for the quantity; None for an episode that does not."""
    if quantity == "success":
        return bool(row.success_once)
    if quantity == "follow":
        return None if donor_target is None else row.choice == donor_target
    if row.target is None or (quantity == "choice" and row.choice == -1):
        return None
    return row.correct


def difference(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow], quantity: str) -> Difference:
    """Paired difference of a quantity, the second condition minus the first.

    A pair is an episode seed that both conditions measured, in which the intervention acted, and that counts in both:
    `choice` needs a touch in both, `follow` a donor in the second, whose target is looked for in the first too.
    """
    plain = {row.seed: row for row in acted(first)}
    counts: Counter[tuple[bool, bool]] = Counter()
    for row in acted(second):
        if row.seed in plain:
            before = has_quantity(plain[row.seed], quantity, row.donor_target)
            after = has_quantity(row, quantity, row.donor_target)
            if before is not None and after is not None:
                counts[before, after] += 1
    table = [counts[True, True], counts[True, False], counts[False, True], counts[False, False]]
    n = sum(table)
    first_rate, second_rate = ((table[0] + table[i]) / n if n else math.nan for i in (1, 2))
    return Difference(n, first_rate, second_rate, *newcombe(*table, CONFIDENCE))


def rate(rows: Iterable[EpisodeRow], quantity: str, confidence: float = CONFIDENCE) -> Rate:
    """Rate of a quantity over the episodes in which the intervention acted."""
    values = [has_quantity(row, quantity, row.donor_target) for row in acted(rows)]
    counted = [value for value in values if value is not None]
    return Rate(len(counted), sum(counted), *wilson(sum(counted), len(counted), confidence))
