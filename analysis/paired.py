"""What an intervention changes, of the same episodes with and without it, and what becomes of a study's predictions.

docs/causality.md defines every word here. Episodes are never pooled over training seeds; a verdict over seeds counts
the verdicts of seeds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.frames import NEVER_FIRED, NOT_RUN
from muvla.evaluation.records import EpisodeRow, acted
from muvla.stats import newcombe, wilson
from sweeps.predictions import Prediction

CONFIDENCE = 0.90  # two-sided: one bound alone errs in 5 of 100
MARGIN = 0.10  # a difference smaller than this is none
SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
NO_GROUND = "no ground"  # of one training seed: its plain run is not what the prediction speaks of
DECIDING_SEEDS = 2  # so many with ground are needed for any verdict over seeds; one of twenty is refuted by chance


@dataclass(frozen=True)
class Difference:
    """Of `n` pairs: a quantity's rate in the first, in the second, and the second less the first with its interval."""

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
        """ "-0.63 [-0.69, -0.56] n 200" """
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] n {self.n}" if self.n else "–"


def _has(row: EpisodeRow, quantity: str, donor_target: int | None) -> bool | None:
    """Whether the episode has the quantity; None where it has nothing to say of it."""
    if quantity == "success":
        return bool(row.success_once)
    if quantity == "follow":
        return None if donor_target is None else row.choice == donor_target
    if row.target is None or (quantity == "choice" and row.choice == -1):
        return None
    return row.choice == row.target


def difference(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow], quantity: str) -> Difference:
    """Over the episode seeds that both measured, in which what is intervened acted, and that both have something to say
    of: of `choice`, with a touch in both; of `follow`, with a donor in the second, whose target is looked for in the
    first too."""
    known = {row.seed: row for row in acted(first)}
    counts: Counter[tuple[bool, bool]] = Counter()
    for row in acted(second):
        if row.seed in known:
            pair = (_has(known[row.seed], quantity, row.donor_target), _has(row, quantity, row.donor_target))
            if None not in pair:
                counts[pair] += 1
    table = [counts[True, True], counts[True, False], counts[False, True], counts[False, False]]
    n = sum(table)
    first_rate, second_rate = ((table[0] + table[i]) / n if n else math.nan for i in (1, 2))
    return Difference(n, first_rate, second_rate, *newcombe(*table, CONFIDENCE))


@dataclass(frozen=True)
class Rate:
    """Of the `n` episodes of one condition that have something to say of a quantity, with its interval."""

    n: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.n if self.n else math.nan

    @property
    def text(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n {self.n}" if self.n else "–"


def rate(rows: Iterable[EpisodeRow], quantity: str, confidence: float = CONFIDENCE) -> Rate:
    found = [_has(row, quantity, row.donor_target) for row in acted(rows)]
    known = [one for one in found if one is not None]
    return Rate(len(known), sum(known), *wilson(sum(known), len(known), confidence))


# --- predictions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Of one training seed. `difference` is against what the prediction names, `rate` that under the intervention."""

    said: str
    difference: Difference | None = None
    rate: Rate | None = None


@dataclass(frozen=True)
class Chance:
    """What a policy without memory may show in these very episodes: the targets of a block are not evenly shared, and
    one that always takes the same place gets the share of the episodes in which that is right."""

    least: float  # 1/N, or the rarest target's share of all measured episodes
    most: float  # 1/N, or the most frequent target's
    constant: float  # 1/N, or the most frequent target's share of the episodes that the quantity counts

    @classmethod
    def of(cls, rows: Iterable[EpisodeRow], quantity: str, chance: float | None) -> Chance | None:
        """None where nothing bounds a policy without memory. Of `follow`, the targets are the donors'."""
        if chance is None:
            return None
        rows = [row for row in rows if row.error is None]
        every = _target_shares(rows, quantity)
        counted = _target_shares([row for row in rows if _has(row, quantity, row.donor_target) is not None], quantity)
        return cls(min([chance, *every]), max([chance, *every]), max([chance, *counted]))


def _target_shares(rows: list[EpisodeRow], quantity: str) -> list[float]:
    targets = Counter(row.donor_target if quantity == "follow" else row.target for row in rows)
    del targets[None]
    return [count / targets.total() for count in targets.values()]


def uses_memory(plain: list[EpisodeRow], chance: float | None) -> bool | None:
    """Whether the plain run chooses, given a touch, better than any constant choice in these episodes; None where
    nothing bounds a policy without memory."""
    bound = Chance.of(plain, "choice", chance)
    return None if bound is None else rate(plain, "choice").low > bound.constant


def verdict(
    one: Prediction,
    plain: list[EpisodeRow],
    versus: list[EpisodeRow],
    rows: list[EpisodeRow],
    chance: float | None,
) -> Verdict:
    """Of one training seed's rows: without intervention, under what it is held against, and under the intervention."""
    if not (plain and versus and rows):
        return Verdict(NOT_RUN)
    shift, level = difference(versus, rows, one.quantity), rate(rows, one.quantity)
    uses, bound = uses_memory(plain, chance), Chance.of(rows, one.quantity, chance)
    if one.where != "any" and uses is not (one.where == "used"):
        return Verdict(NO_GROUND, shift, level)
    said = {
        "null": lambda: _null(shift),
        "lower": lambda: _lower(-shift.high, -shift.low, shift.is_null),
        "higher": lambda: _lower(shift.low, shift.high, shift.is_null),
        "chance": lambda: _at(level, bound),
        "above_chance": lambda: _above(level, bound),
        "to_chance": lambda: _both(_lower(-shift.high, -shift.low, shift.is_null), _at(level, bound)),
    }[one.expected]()
    return Verdict(said, shift, level)


def _null(shift: Difference) -> str:
    if shift.is_null:
        return SUPPORTED
    return REFUTED if shift.low > MARGIN or shift.high < -MARGIN else UNDECIDED


def _lower(least: float, most: float, is_null: bool) -> str:
    """Of the interval [least, most] of how far it moved in the direction predicted."""
    if is_null or most < 0:
        return REFUTED
    return SUPPORTED if least > 0 else UNDECIDED


def _at(level: Rate, chance: Chance | None) -> str:
    if chance is None or not level.n:
        return UNDECIDED
    least, most = chance.least - MARGIN, chance.most + MARGIN
    if least < level.low and level.high < most:
        return SUPPORTED
    return REFUTED if level.low > most or level.high < least else UNDECIDED


def _above(level: Rate, chance: Chance | None) -> str:
    if chance is None or not level.n:
        return UNDECIDED
    bound = chance.constant
    return _lower(level.low - bound, level.high - bound, is_null=_at(level, chance) == SUPPORTED)


def _both(one: str, other: str) -> str:
    if REFUTED in (one, other):
        return REFUTED
    return SUPPORTED if one == other == SUPPORTED else UNDECIDED


def over_seeds(verdicts: Iterable[str]) -> str:
    """Of at least two training seeds with ground: supported if all of them support it, refuted if two refute it. Else
    undecided, with the number of seeds that it lacks; also where a seed has not run, as it could change the verdict,
    and where it never fired: what is left would be the seeds whose episodes are long enough."""
    verdicts = list(verdicts)
    run = [one for one in verdicts if one not in (NOT_RUN, NEVER_FIRED)]
    if NOT_RUN in verdicts:
        return f"{UNDECIDED} ({len(verdicts) - verdicts.count(NOT_RUN)} of {len(verdicts)} seeds run)"
    if NEVER_FIRED in verdicts:
        return f"{UNDECIDED} ({NEVER_FIRED} in {verdicts.count(NEVER_FIRED)} of {len(verdicts)} seeds)"
    grounded = [one for one in run if one != NO_GROUND]
    if len(grounded) < DECIDING_SEEDS:
        return f"{UNDECIDED} ({len(grounded)} of {len(run)} seeds {'has' if len(grounded) == 1 else 'have'} ground)"
    if all(one == SUPPORTED for one in grounded):
        return SUPPORTED
    return REFUTED if grounded.count(REFUTED) >= DECIDING_SEEDS else UNDECIDED
