"""Effects of one training seed under an intervention: balanced over targets, and bounded where touches were lost.

A block of episodes does not share its targets evenly, and a policy that always takes the same place is right as often
as this place is the target. Rates are therefore averaged over the targets: without memory the choice does not depend
on the target, so the balanced accuracy is 1/N for every habit. docs/causality.md defines every quantity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.paired import has_quantity
from muvla.evaluation.records import EpisodeRow, acted

RULE_OF_THREE = 1.8  # n episodes without an event leave a standard error of 1.8/n: 3/n is the upper 95 % limit


@dataclass(frozen=True)
class Effect:
    """An effect of one training seed.

    `low` and `high` are the effect if every unknown touch counted against it, and for it; they are equal where no
    touch was lost or gained. `variance` is over episodes.
    """

    n: int
    low: float
    high: float
    variance: float

    @property
    def text(self) -> str:
        """For example "-0.63 n 200", or "-0.45 … -0.12 n 145" where touches were lost."""
        if not self.n:
            return "–"
        value = f"{self.low:+.2f}" if self.low == self.high else f"{self.low:+.2f} … {self.high:+.2f}"
        return f"{value} n {self.n}"


NO_EFFECT = Effect(0, math.nan, math.nan, math.nan)


def choice_difference(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow]) -> Effect:
    """Difference in first-touch accuracy, second − first, over the episodes that touch in either condition.

    An episode that touches in one condition alone has an unknown choice in the other: it is wrong or right there.
    """
    lows, highs, targets = [], [], []
    for before, after in _pairs(first, second):
        if before.target is None or before.choice == after.choice == -1:
            continue
        was, now = (None if row.choice == -1 else float(row.choice == row.target) for row in (before, after))
        lows.append((0.0 if now is None else now) - (1.0 if was is None else was))
        highs.append((1.0 if now is None else now) - (0.0 if was is None else was))
        targets.append(before.target)
    return balanced(lows, highs, targets)


def choice_level(plain: Iterable[EpisodeRow], rows: Iterable[EpisodeRow], chance: float) -> Effect:
    """First-touch accuracy minus chance, over the episodes that touch here or without intervention."""
    lows, highs, targets = [], [], []
    for before, after in _pairs(plain, rows):
        if after.target is None or before.choice == after.choice == -1:
            continue
        now = None if after.choice == -1 else float(after.choice == after.target)
        lows.append(0.0 if now is None else now)
        highs.append(1.0 if now is None else now)
        targets.append(after.target)
    return _above(balanced(lows, highs, targets), targets, chance)


def difference_of(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow], quantity: str) -> Effect:
    """Difference in `touch`, `own`, `success` or `follow` over all paired episodes, balanced over targets."""
    values, targets = [], []
    for before, after in _pairs(first, second):
        was, now = (_has(row, quantity, after.donor_target) for row in (before, after))
        if was is not None and now is not None:
            values.append(float(now) - float(was))
            targets.append(_target(after, quantity))
    return balanced(values, values, targets)


def level_of(rows: Iterable[EpisodeRow], quantity: str, chance: float) -> Effect:
    """Rate of `own`, `success` or `follow` minus chance, balanced over targets."""
    values, targets = [], []
    for row in acted(rows):
        has = _has(row, quantity, row.donor_target)
        if has is not None:
            values.append(float(has))
            targets.append(_target(row, quantity))
    return _above(balanced(values, values, targets), targets, chance)


def log_success_ratio(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow], quantity: str) -> Effect:
    """Logarithm of the ratio of two success rates, second / first, each with half an episode added.

    Success is touch rate times accuracy. Where an intervention disturbs two policies alike, both lose the same share,
    so the ratio of a policy with memory can be compared with that of a policy without.
    """
    pairs = [(_has(a, quantity, None), _has(b, quantity, None)) for a, b in _pairs(first, second)]
    pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
    n = len(pairs)
    if not n:
        return NO_EFFECT
    rates = [(sum(bool(pair[i]) for pair in pairs) + 0.5) / (n + 1) for i in (0, 1)]
    value = math.log(rates[1] / rates[0])
    return Effect(n, value, value, sum((1 - rate) / (n * rate) for rate in rates))


def _pairs(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow]) -> list[tuple[EpisodeRow, EpisodeRow]]:
    """Rows of episodes that both conditions measured, and in which the intervention acted."""
    before = {row.seed: row for row in acted(first)}
    return [(before[row.seed], row) for row in acted(second) if row.seed in before]


def _has(row: EpisodeRow, quantity: str, donor_target: int | None) -> bool | None:
    if quantity == "touch":
        return None if row.target is None else row.choice != -1
    return has_quantity(row, quantity, donor_target)


def _target(row: EpisodeRow, quantity: str) -> int | None:
    return row.donor_target if quantity == "follow" else row.target


def balanced(lows: Sequence[float], highs: Sequence[float], targets: Sequence[int | None]) -> Effect:
    """The mean over targets of the episodes' mean; the plain mean where a task has no target.

    Args:
        lows: an outcome or a difference per episode, with unknown touches against it.
        highs: the same with unknown touches for it.
        targets: the target of each episode.
    """
    n = len(lows)
    if not n:
        return NO_EFFECT
    lows, highs, targets = np.asarray(lows), np.asarray(highs), np.asarray([-2 if t is None else t for t in targets])
    groups = [targets == target for target in np.unique(targets)]
    variance = sum(lows[group].var() / group.sum() for group in groups) / len(groups) ** 2
    return Effect(
        n,
        float(np.mean([lows[group].mean() for group in groups])),
        float(np.mean([highs[group].mean() for group in groups])),
        max(float(variance), (RULE_OF_THREE / n) ** 2),
    )


def _above(effect: Effect, targets: Sequence[int | None], chance: float) -> Effect:
    """The effect minus chance. With T < N targets in the block, a constant choice reaches 1/T."""
    if not effect.n:
        return effect
    bound = max(chance, 1 / len(set(targets)))
    return Effect(effect.n, effect.low - bound, effect.high - bound, effect.variance)
