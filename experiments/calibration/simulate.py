"""Error rates of verdicts on simulated studies: `python -m experiments.calibration.simulate`.

A simulated training seed has 200 episodes with three targets. Its accuracies without and with an intervention come from
one of three distributions over seeds; the episodes are drawn from these accuracies. Verdicts are those of a report
(`analysis.verdicts.over_seeds`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.effects import Effect, balanced
from analysis.paired import MARGIN
from analysis.verdicts import KINDS, LOG_MARGIN, REFUTED, SUPPORTED, UNDECIDED, against_effects, over_seeds
from experiments.calibration.measured import RESULTS, seed_rates
from muvla.stats.proportions import wilson
from muvla.utils.rng import numpy_rng

EPISODES, TARGETS = 200, 3
CHANCE = 1 / TARGETS
SEEDS = (3, 5, 10, 20)
# Accuracy of a seed without intervention, and the intervention's effect around its mean.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], tuple[float, float]]] = {
    "alike": lambda rng: (0.6, 0.0),
    "spread": lambda rng: (rng.normal(0.6, 0.1), rng.normal(0, 0.05)),
    "bimodal": lambda rng: (0.9 if rng.random() < 0.6 else 0.4, 0.0),
    "bimodal effect": lambda rng: (0.6, rng.choice([-1.0, 1.0])),  # half of the seeds have twice the effect, half none
    "measured, unused": lambda rng: _measured_effect(rng),
    "measured, used": lambda rng: (rng.choice(seed_rates("K=2", "choice")), 0.0),
}


def _measured_effect(rng: np.random.Generator) -> tuple[float, float]:
    """Accuracy of a seed of `K=1` without memory use, and the effect of noise on it around the mean of such seeds."""
    before, after = (seed_rates("K=1", "choice", name, unused=True) for name in ("none", "noise_matched"))
    seed = rng.integers(len(before))
    effects = after - before
    return before[seed], effects[seed] - effects.mean()


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


def seed_effect(kind: str, mean: float, distribution: str, rng: np.random.Generator) -> Effect:
    """The effect of one simulated training seed: a paired difference, or a rate minus chance."""
    targets = rng.integers(TARGETS, size=EPISODES)
    plain, around = DISTRIBUTIONS[distribution](rng)
    effect = mean + (mean * around if distribution == "bimodal effect" else around)
    if kind in ("chance", "above_chance"):
        rights = rng.random(EPISODES) < CHANCE + effect
        level = balanced(rights, rights, targets)
        return Effect(level.n, level.low - CHANCE, level.high - CHANCE, level.variance)
    plain = min(plain, 1 - effect)  # else a rate of 1 has no room for the planted effect
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


# --- against a reference variant ------------------------------------------------------------------------------------

AGAINST_REFERENCE = ("null", "lower", "higher")
# Name → success of n training seeds, and the share of it that an intervention leaves without any memory.
FALLING: dict[str, Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]] = {
    "at chance": lambda rng, n: (rng.normal(1 / 3, 0.05, n), np.full(n, 0.45)),
    "learned": lambda rng, n: (rng.normal(0.9, 0.05, n), np.full(n, 0.8)),
    "spread": lambda rng, n: (rng.normal(0.6, 0.1, n), np.full(n, 0.6)),
    "measured": lambda rng, n: _measured_fall(rng, n),
}


def _measured_fall(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Success of training seeds of `dummy`, and the share that noise leaves of it."""
    before, after = (seed_rates("dummy", "success", name) for name in ("none", "noise_matched"))
    seeds = rng.integers(len(before), size=n)
    return before[seeds], after[seeds] / before[seeds]


def reference_rates(studies: int) -> pd.DataFrame:
    """A line per kind of verdict against a reference, planted effect, distribution and number of seeds.

    The intervention lowers success of the variant and of its reference. `no effect` lowers both by the same share;
    `at the margin` lowers the variant by the margin more, or less.
    """
    lines = []
    for kind in AGAINST_REFERENCE:
        for planted, effects in (("no effect", (0.0,)), ("at the margin", (-LOG_MARGIN, LOG_MARGIN))):
            for distribution in FALLING:
                for seeds in SEEDS:
                    rng = numpy_rng(0, "reference", kind, planted, distribution, str(seeds))
                    effect = effects[0] if kind == "lower" else effects[-1]
                    words = [_against_reference(kind, effect, distribution, seeds, rng) for _ in range(studies)]
                    lines.append(_line(kind, planted, distribution, seeds, words, WRONG[planted][kind]))
    return pd.DataFrame(lines)


def _against_reference(kind: str, effect: float, distribution: str, seeds: int, rng: np.random.Generator) -> str:
    first, second = (_log_ratios(shift, distribution, seeds, rng) for shift in (effect, 0.0))
    return against_effects(first, second, kind, LOG_MARGIN).text.split(" ")[0]


def _log_ratios(shift: float, distribution: str, seeds: int, rng: np.random.Generator) -> list[Effect]:
    """Logarithm of the ratio of successes with and without intervention, by training seed."""
    before, left = FALLING[distribution](rng, seeds)
    before = np.clip(before, 0.05, 1)
    rates = np.stack([before, np.clip(before * left * np.exp(shift), 0, 1)])
    counted = (rng.binomial(EPISODES, rates) + 0.5) / (EPISODES + 1)
    values = np.log(counted[1] / counted[0])
    variances = ((1 - counted) / (EPISODES * counted)).sum(axis=0)
    return [Effect(EPISODES, value, value, variance) for value, variance in zip(values, variances, strict=True)]


def main(arguments: list[str] | None = None) -> None:
    """Writes references-simulated.csv and simulated.csv."""
    parser = argparse.ArgumentParser(description="Measure how often verdicts are wrong.")
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies per line (%(default)s)")
    options = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    reference_rates(options.studies).round(4).to_csv(RESULTS / "references-simulated.csv", index=False)
    verdict_rates(options.studies).round(4).to_csv(RESULTS / "simulated.csv", index=False)


if __name__ == "__main__":
    main()
