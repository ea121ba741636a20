"""Contrasts between variants: which pairs a study compares, on which metric, by which test.

The training seed is the unit of a contrast. The primary metric alone enters Holm's correction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from muvla.errors import MuvlaError, unknown_name
from muvla.stats.hypotheses import Pairing, seeds_for_power, smallest_p
from sweeps.time_to_learn import METRIC as TIME_TO_LEARN

LEVEL = 0.05  # error rate of a study's primary family
PAIRED_SEEDS = 8  # five pairs can never reach p = 0.05: 2 / 2^5 = 0.0625
RATES = ("success", "choice", "touch")
PRIMARY = (*RATES, TIME_TO_LEARN)
SPREADS = (0.05, 0.1, 0.3)  # standard deviations over seeds for which a plan states the seeds that a design needs
EFFECT = 0.2  # the difference for which a plan states them


@dataclass(frozen=True)
class Contrasts:
    """The planned comparisons of a study.

    Attributes:
        pairs: (variant, reference) to compare; empty compares every variant with `reference`.
        reference: the variant that all others are compared with; None is the variant that equals the base, or the
            first one.
        primary: metric of the primary family: "success", "choice" (first-touch accuracy given a touch), "touch", or
            "time_to_learn" (updates until success; a study with the field `time_to_learn` alone has it).
        test: "unpaired" regroups the seeds of both variants; "paired" exchanges the two variants of a seed. Times to
            learn are compared unpaired, by the log-rank test.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    reference: str | None = None
    primary: str = "success"
    test: Pairing = "unpaired"

    def resolve(self, where: str, variants: Iterable[str], base: str, seeds: int) -> tuple[tuple[str, str], ...]:
        """The pairs of names.

        Args:
            where: the study, for errors.
            variants: names of the study's variants.
            base: the variant that the others are compared with by default.
            seeds: number of training seeds.

        Raises:
            MuvlaError: an unknown variant, metric or test, or a paired test with too few seeds.
        """
        variants = list(variants)
        for name in {name for pair in self.pairs for name in pair} | ({self.reference} - {None}):
            if name not in variants:
                raise unknown_name(f"{where}, contrasts", name, variants)
        if self.primary not in PRIMARY:
            raise unknown_name(f"{where}, contrasts.primary", self.primary, PRIMARY)
        if self.test not in ("unpaired", "paired"):
            raise unknown_name(f"{where}, contrasts.test", self.test, ("unpaired", "paired"))
        if self.test == "paired" and self.primary == TIME_TO_LEARN:
            raise MuvlaError(
                f"{where}, contrasts.test",
                got=f"paired with the primary metric {TIME_TO_LEARN}",
                expected="unpaired: the log-rank test compares groups of seeds",
                remedy="leave the test out, or take another primary metric",
            )
        if self.test == "paired" and seeds < PAIRED_SEEDS:
            raise MuvlaError(
                f"{where}, contrasts.test",
                got=f"paired with {seeds} training seeds",
                expected=f"at least {PAIRED_SEEDS} seeds for a paired test",
                remedy="use the unpaired test, or add training seeds",
            )
        reference = self.reference or base
        return self.pairs or tuple((name, reference) for name in variants if name != reference)

    def narrowed(self, variants: Iterable[str], seeds: int) -> Contrasts:
        """The contrasts that a part of the study still has; unpaired where too few seeds are left."""
        kept = tuple(pair for pair in self.pairs if set(pair) <= set(variants))
        return replace(
            self,
            pairs=kept,
            reference=self.reference if self.reference in set(variants) else None,
            test="unpaired" if seeds < PAIRED_SEEDS else self.test,
        )


def design_lines(contrasts: Contrasts, pairs: int, seeds: int) -> list[str]:
    """Sentences of a plan: the smallest p of the design after Holm, and the seeds that an effect needs.

    Args:
        contrasts: metric and test.
        pairs: number of contrasts.
        seeds: training seeds per variant.
    """
    if not pairs:
        return []
    least = min(1.0, pairs * smallest_p(seeds, seeds, contrasts.test))
    test = "log-rank" if contrasts.primary == TIME_TO_LEARN else f"{contrasts.test} permutation"
    text = f"Contrasts: {pairs} on {contrasts.primary}, {test} test over {seeds} training seeds"
    verdict = "this design cannot conclude" if least > LEVEL else "this design can conclude"
    lines = [f"{text}; smallest p after Holm {least:.2g}: {verdict}"]
    if contrasts.primary == TIME_TO_LEARN:  # the power follows from the updates, which nobody knows before
        return lines
    needs = (f"{_needed(spread, pairs)} seeds at a spread of {spread:g}" for spread in SPREADS)
    lines.append(f"80 % power for a difference of {EFFECT:g} in {contrasts.primary} needs {', '.join(needs)}")
    return lines


def _needed(spread: float, pairs: int) -> int:
    return seeds_for_power(EFFECT, spread, error=LEVEL / pairs)
