"""Error rates of verdicts and contrasts on simulated studies: `python -m experiments.calibration.simulate`.

A simulated training seed has 200 episodes with three targets. Its accuracies without and with an intervention come from
one of three distributions over seeds; the episodes are drawn from these accuracies. Verdicts and tests are those of a
report (`analysis.verdicts.over_seeds`, `muvla.stats`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.effects import Effect, balanced
from analysis.paired import MARGIN
from analysis.verdicts import KINDS, REFUTED, SUPPORTED, UNDECIDED, over_seeds
from muvla.stats.hypotheses import permutation_p, smallest_p
from muvla.stats.means import difference_interval
from muvla.stats.proportions import wilson
from muvla.utils.rng import numpy_rng

RESULTS = Path(__file__).with_name("results")
EPISODES, TARGETS = 200, 3
CHANCE = 1 / TARGETS
SEEDS = (3, 5, 10, 20)
# Accuracy of a seed without intervention, and the intervention's effect around its mean.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], tuple[float, float]]] = {
    "alike": lambda rng: (0.6, 0.0),
    "spread": lambda rng: (rng.normal(0.6, 0.1), rng.normal(0, 0.05)),
    "bimodal": lambda rng: (0.9 if rng.random() < 0.6 else 0.4, 0.0),
    "bimodal effect": lambda rng: (0.6, rng.choice([-1.0, 1.0])),  # half of the seeds have twice the effect, half none
}
# The effect of the intervention, and the verdict that is wrong under it.
PLANTED = {
    "no effect": {"lower": 0.0, "higher": 0.0, "above_chance": 0.0, "null": 0.0, "chance": 0.0},
    "at the margin": {"lower": -MARGIN, "higher": MARGIN, "above_chance": MARGIN, "null": MARGIN, "chance": MARGIN},
}
WRONG = {
    "no effect": {
        "lower": SUPPORTED,
        "higher": SUPPORTED,
        "above_chance": SUPPORTED,
        "null": REFUTED,
        "chance": REFUTED,
    },
    "at the margin": {
        "lower": REFUTED,
        "higher": REFUTED,
        "above_chance": REFUTED,
        "null": SUPPORTED,
        "chance": SUPPORTED,
    },
}
EFFECTS = (0.1, 0.2, 0.5)  # differences between variants, for power


def seed_effect(kind: str, mean: float, distribution: str, rng: np.random.Generator) -> Effect:
    """The effect of one simulated training seed: a paired difference, or a rate minus chance."""
    targets = rng.integers(TARGETS, size=EPISODES)
    plain, around = DISTRIBUTIONS[distribution](rng)
    effect = mean + (mean * around if distribution == "bimodal effect" else around)
    if kind in ("chance", "above_chance"):
        rights = rng.random(EPISODES) < CHANCE + effect
        level = balanced(rights, rights, targets)
        return Effect(level.n, level.low - CHANCE, level.high - CHANCE, level.variance)
    before, after = rng.random(EPISODES) < plain, rng.random(EPISODES) < plain + effect
    values = after.astype(float) - before
    return balanced(values, values, targets)


def verdict_rates(studies: int) -> pd.DataFrame:
    """A line per kind, planted effect, distribution and number of seeds: shares of verdicts and of wrong ones."""
    lines = []
    for kind in KINDS:
        for planted, means in PLANTED.items():
            for distribution in DISTRIBUTIONS:
                for seeds in SEEDS:
                    rng = numpy_rng(0, "calibration", kind, planted, distribution, str(seeds))
                    words = [_word(kind, means, distribution, seeds, rng) for _ in range(studies)]
                    wrong = SUPPORTED if kind == "to_chance" else WRONG[planted][kind]
                    lines.append(_line(kind, planted, distribution, seeds, words, wrong))
    return pd.DataFrame(lines)


def _word(kind: str, means: dict[str, float], distribution: str, seeds: int, rng: np.random.Generator) -> str:
    if kind != "to_chance":
        effects = [seed_effect(kind, means[kind], distribution, rng) for _ in range(seeds)]
        return over_seeds(effects, kind).text.split(" ")[0]
    # `to_chance` is wrong where the accuracy stays at the margin above chance, or where nothing falls.
    falls = [seed_effect("lower", -0.2 if means["lower"] else 0.0, distribution, rng) for _ in range(seeds)]
    levels = [seed_effect("chance", means["chance"], distribution, rng) for _ in range(seeds)]
    words = [over_seeds(falls, "lower").text.split(" ")[0], over_seeds(levels, "chance").text.split(" ")[0]]
    return SUPPORTED if words == [SUPPORTED, SUPPORTED] else REFUTED if REFUTED in words else UNDECIDED


def _line(kind: str, planted: str, distribution: str, seeds: int, words: list[str], wrong: str) -> dict[str, object]:
    count, n = words.count(wrong), len(words)
    low, high = wilson(count, n)
    shares = {word: words.count(word) / n for word in (SUPPORTED, REFUTED, UNDECIDED)}
    line = {"kind": kind, "planted": planted, "distribution": distribution, "seeds": seeds, "studies": n}
    return line | {"wrong": wrong, "wrong_share": count / n, "low": low, "high": high} | shares


def contrast_rates(studies: int) -> pd.DataFrame:
    """A line per distribution, difference and number of seeds: how often a contrast is significant, and coverage.

    `attainable` is the largest error rate of the permutation test below 0.05: a multiple of its smallest p.
    """
    lines = []
    for distribution in ("spread", "bimodal"):
        for effect in (0.0, *EFFECTS):
            for seeds in SEEDS:
                rng = numpy_rng(0, "contrast", distribution, str(effect), str(seeds))
                found, covered = 0, 0
                for _ in range(studies):
                    first, second = (_scores(distribution, seeds, shift, rng) for shift in (effect, 0.0))
                    found += permutation_p(first, second) <= 0.05
                    low, high = difference_interval(first, second)
                    covered += low <= effect <= high
                step = smallest_p(seeds, seeds)
                line = {"distribution": distribution, "difference": effect, "seeds": seeds, "studies": studies}
                lines.append(
                    line
                    | {
                        "significant": found / studies,
                        "attainable": step * (0.05 // step),
                        "coverage": covered / studies,
                    }
                )
    return pd.DataFrame(lines)


def _scores(distribution: str, seeds: int, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Success of simulated training seeds; a shift moves every seed's accuracy."""
    rates = [DISTRIBUTIONS[distribution](rng)[0] - 0.4 * (distribution == "bimodal") + shift for _ in range(seeds)]
    return rng.binomial(EPISODES, np.clip(rates, 0, 1)) / EPISODES


def main(arguments: list[str] | None = None) -> None:
    """Writes simulated.csv and contrasts-simulated.csv."""
    parser = argparse.ArgumentParser(description="Measure how often verdicts and contrasts are wrong.")
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies per line (%(default)s)")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    verdict_rates(options.studies).round(4).to_csv(RESULTS / "simulated.csv", index=False)
    contrast_rates(min(options.studies, 1000)).round(4).to_csv(RESULTS / "contrasts-simulated.csv", index=False)


if __name__ == "__main__":
    main()
