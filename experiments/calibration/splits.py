"""Error rates on real training seeds: `python -m experiments.calibration.splits`.

The 20 training seeds of each variant are split at random into two groups of 10, or of 5. Both groups have one variant,
so a contrast or a verdict that finds a difference between them is wrong. A verdict is wrong too if it finds an effect
on the choice of training seeds that do not use their memory. Effects of the margin are planted by changing episodes at
random. Tests and verdicts are those of a report. All splits come from the same seeds, so they depend on each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.effects import Effect, balanced, choice_difference, choice_level, difference_of, log_success_ratio
from analysis.frames import rates_of
from analysis.paired import MARGIN
from analysis.verdicts import LOG_MARGIN, against_effects, over_seeds, uses_memory
from experiments.calibration.simulate import WRONG
from muvla.evaluation.records import CellRecords, EpisodeRow
from muvla.stats.hypotheses import permutation_ps
from muvla.stats.proportions import wilson
from muvla.utils.rng import numpy_rng
from sweeps.committed import load_results
from sweeps.contrasts import LEVEL, RATES

FOLDER = Path(__file__).parent
NAME = "splits.csv"
SIZES = (10, 5)  # training seeds in each of the two groups
SHAMS = {"transplant": "transplant_same"}
DRAWS = 10  # plantings of an effect, each with its share of the splits
Rows = list[EpisodeRow]


class Claim(NamedTuple):
    """A statement that is known to be true or false, and how its effect is counted in one training seed."""

    against: str  # "no intervention", "sham", "chance", or "other seeds" of the same variant
    quantity: str
    kind: str  # a word of `analysis.verdicts.KINDS`
    effect: Callable[[Rows, Rows], Effect]
    is_ratio: bool = False


def claims(chance: float) -> list[Claim]:
    """Every kind of statement, by what it is compared with."""
    level = partial(choice_level, chance=chance)
    found = [Claim("chance", "choice", kind, level) for kind in ("chance", "above_chance")]
    for kind in ("null", "lower", "higher"):
        found += [
            Claim("no intervention", "choice", kind, choice_difference),
            Claim("sham", "own", kind, partial(difference_of, quantity="own")),
            Claim("other seeds", "touch", kind, partial(difference_of, quantity="touch")),
            *(
                Claim("other seeds", quantity, kind, partial(log_success_ratio, quantity=quantity), is_ratio=True)
                for quantity in ("own", "success")
            ),
        ]
    return found


def split_rates(cells: list[CellRecords], splits: int) -> pd.DataFrame:
    """A line per variant, claim, intervention, planted effect and size of the groups: how many splits are wrong.

    Conditions that are equal to the plain run by construction do not count. Statements on the choice take the training
    seeds that do not use their memory by the rule of predictions (`where="unused"`), if there are enough.

    Args:
        cells: the cells of the study, all training seeds of a variant.
        splits: random splits per line.
    """
    by_variant: dict[str, list[CellRecords]] = {}
    for cell in cells:
        by_variant.setdefault(cell.variant, []).append(cell)
    lines = [
        line
        for variant, seeds in by_variant.items()
        for line in (*_contrast_lines(variant, seeds, splits), *_verdict_lines(variant, seeds, splits))
    ]
    return pd.DataFrame(lines)


def _contrast_lines(variant: str, seeds: list[CellRecords], splits: int) -> Iterator[dict[str, object]]:
    plain = [rates_of(_rows(seed, "none")) for seed in seeds]
    for metric in RATES:
        rates = np.array([rate[f"{metric}_rate"] for rate in plain])
        for size in SIZES:
            order = _orders(len(seeds), size, splits, variant, "contrast", metric)
            first, second = rates[order[:, :size]], rates[order[:, size:]]
            wrong = int((permutation_ps(first, second) <= LEVEL).sum())
            yield _line(("contrast", "other seeds", variant, metric, "none", "no effect"), size, splits, wrong)


def _verdict_lines(variant: str, seeds: list[CellRecords], splits: int) -> Iterator[dict[str, object]]:
    protocol = next(iter(seeds[0].chance))
    interventions = [name for key, name in seeds[0].rows if key == protocol]
    unused = [seed for seed in seeds if uses_memory(_rows(seed, "none"), seed.chance[protocol]) is False]
    for claim in claims(float(seeds[0].chance[protocol] or 0)):
        chosen = seeds if claim.against == "other seeds" else unused
        for name in interventions:
            versus = SHAMS.get(name) if claim.against == "sham" else "none"
            if versus is None or (name == "none" and claim.against != "chance"):
                continue
            pairs = [(_rows(seed, versus), _rows(seed, name)) for seed in chosen]
            if name != "none" and all(map(_is_equal, pairs)):
                continue
            for planted, size in itertools.product(WRONG, SIZES):
                names = (claim.kind, claim.against, variant, claim.quantity, name, planted)
                if len(chosen) >= (2 * size if claim.against == "other seeds" else size):
                    orders = _orders(len(chosen), size, splits, *names)
                    words = _words(claim, pairs, planted != "no effect", orders, size)
                    yield _line(names, size, splits, words.count(WRONG[planted][claim.kind]))


def _words(claim: Claim, pairs: list[tuple[Rows, Rows]], is_planted: bool, orders: np.ndarray, size: int) -> list[str]:
    """The verdict of every split; orders is (splits, seeds), of which the first `size` are the first group."""
    words = []
    for draw, part in enumerate(np.array_split(orders, DRAWS if is_planted else 1)):
        effects = [claim.effect(*(plant(claim, pair, draw, i) if is_planted else pair)) for i, pair in enumerate(pairs)]
        others = [claim.effect(*pair) for pair in pairs]
        for order in part:
            first = [effects[i] for i in order[:size]]
            if claim.against == "other seeds":
                margin = LOG_MARGIN if claim.is_ratio else MARGIN
                verdict = against_effects(first, [others[i] for i in order[size:]], claim.kind, margin)
            else:
                verdict = over_seeds(first, claim.kind)
            words.append(verdict.text.split(" ")[0])
    return words


def plant(claim: Claim, pair: tuple[Rows, Rows], draw: int, seed: int) -> tuple[Rows, Rows]:
    """The pair of conditions with an effect of the margin in the direction that the claim is about."""
    rng = numpy_rng(0, "planted", *claim[:3], str(draw), str(seed))
    if claim.against == "chance":
        return pair[0], _change(pair[1], "choice", rng, to=True, share=None)
    share = MARGIN if claim.is_ratio else None
    if claim.kind == "higher":  # than the plain run, which loses
        return _change(pair[0], claim.quantity, rng, to=False, share=share), pair[1]
    return pair[0], _change(pair[1], claim.quantity, rng, to=False, share=share)


def _change(rows: Rows, quantity: str, rng: np.random.Generator, to: bool, share: float | None) -> Rows:
    """Rows in which episodes gain (`to`) or lose a quantity at random.

    Args:
        rows: the episodes.
        quantity: "choice", "own", "success" or "touch".
        rng: generator.
        to: True turns wrong choices into right ones, False takes the quantity away.
        share: of the episodes that can change; None changes the rate by the margin.
    """
    counted = [row for row in rows if quantity != "choice" or row.choice != -1]
    able = [row for row in counted if _has(row, quantity) is not to]
    if share is None:  # an effect is the mean over targets
        values = [float(_has(row, quantity) is not to) for row in counted]
        share = min(1.0, MARGIN / max(balanced(values, values, [row.target for row in counted]).low, MARGIN))
    changed = {row.seed for row in able if rng.random() < share}
    return [_changed(row, quantity, to) if row.seed in changed else row for row in rows]


def _has(row: EpisodeRow, quantity: str) -> bool:
    if quantity == "touch":
        return row.choice != -1
    return bool(row.success_once) if quantity == "success" else row.correct


def _changed(row: EpisodeRow, quantity: str, to: bool) -> EpisodeRow:
    if quantity == "success":
        return dataclasses.replace(row, success_once=to)
    if quantity == "touch":
        return dataclasses.replace(row, choice=-1, success_once=False)
    another = 0 if row.target else 1
    return dataclasses.replace(row, choice=row.target if to else another, success_once=to and row.success_once)


def _is_equal(pair: tuple[Rows, Rows]) -> bool:
    first, second = (sorted((row.seed, row.choice, row.success_once) for row in rows) for rows in pair)
    return first == second


def _rows(cell: CellRecords, intervention: str) -> Rows:
    return cell.rows[next(iter(cell.chance)), intervention]


def _orders(n: int, size: int, splits: int, *names: str) -> np.ndarray:
    """(splits, at most 2 × size) indices of training seeds: two groups of `size`, the second where there are enough."""
    rng = numpy_rng(0, "splits", *names, str(size))
    return rng.permuted(np.tile(np.arange(n), (splits, 1)), axis=1)[:, : 2 * size]


def _line(names: tuple[str, ...], size: int, splits: int, wrong: int) -> dict[str, object]:
    columns = dict(zip(("statement", "against", "variant", "quantity", "intervention", "planted"), names, strict=True))
    low, high = wilson(wrong, splits)
    return columns | {
        "seeds": size,
        "splits": splits,
        "wrong": wrong,
        "share": wrong / splits,
        "low": low,
        "high": high,
    }


def main(arguments: list[str] | None = None) -> None:
    """Writes splits.csv from the committed rows."""
    parser = argparse.ArgumentParser(description="Measure how often contrasts and verdicts are wrong on real seeds.")
    parser.add_argument("--splits", type=int, default=200, help="random splits per line (%(default)s)")
    options = parser.parse_args(arguments)
    frame = split_rates(load_results(FOLDER).records, options.splits)
    frame.round(4).to_csv(FOLDER / "results" / NAME, index=False)


if __name__ == "__main__":
    main()
