"""Verdicts on a study's predictions: tests over the training seeds of a variant, with stated error rates.

docs/causality.md defines every word. `experiments/calibration` measures how often each kind of verdict is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.effects import (
    NO_EFFECT,
    Effect,
    choice_difference,
    choice_level,
    difference_of,
    level_of,
    log_success_ratio,
)
from analysis.frames import NEVER_FIRED, NOT_APPLICABLE, NOT_RUN, best_constant_choice
from analysis.intervention_frames import labelled
from analysis.paired import MARGIN, rate
from analysis.tables import pivot, seed_name, seeds_of
from muvla.evaluation.records import CellRecords, EpisodeRow
from muvla.stats.hypotheses import Bounds, seed_bounds, welch_bounds
from sweeps.predictions import Prediction
from sweeps.registration import NOT_REGISTERED

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
NO_GROUND = "no ground"  # the plain run of a training seed does not meet the prediction's condition `where`
LEAST_SEEDS = 3  # grounded training seeds below which no verdict is given
# Grounded seeds below which no effect is called null or smaller than the margin: an effect that half of the seeds have
# is missed by all of three seeds in one study of eight.
EQUIVALENCE_SEEDS = 5
DISTURBED = ("own", "success", "touch")  # fall without any memory too, so that they need a reference variant
LOG_MARGIN = math.log(1 / (1 - MARGIN))  # a ratio of success within a tenth is null

KINDS = ("null", "lower", "higher", "chance", "above_chance", "to_chance")


@dataclass(frozen=True)
class Rows:
    """The rows of one training seed that a prediction needs."""

    plain: list[EpisodeRow]
    versus: list[EpisodeRow]
    under: list[EpisodeRow]
    chance: float | None


@dataclass(frozen=True)
class Verdict:
    """The verdict over the training seeds of a variant.

    `at_low` and `at_high` are the limits with every unknown touch against the effect, and for it.
    """

    text: str
    seeds: int = 0  # with ground
    at_low: Bounds | None = None
    at_high: Bounds | None = None

    @property
    def evidence(self) -> str:
        """For example "-0.63 [-0.69, -0.56], 5 seeds": the mean effect over seeds with its 90 % interval."""
        if self.at_low is None or math.isnan(self.at_low.low):
            return ""
        value = f"{self.at_low.value:+.2f}"
        if self.at_low != self.at_high:
            value += f" … {self.at_high.value:+.2f}"
        return f"{value} [{self.at_low.low:+.2f}, {self.at_high.high:+.2f}], {self.seeds} seeds"


def uses_memory(plain: list[EpisodeRow], chance: float | None) -> bool | None:
    """True if the plain run chooses, given a touch, better than any constant choice in these episodes.

    None where nothing bounds a policy without memory.
    """
    if chance is None:
        return None
    touched = [row for row in plain if row.choice != -1]
    constant = best_constant_choice(touched)
    return rate(plain, "choice").low > max(chance, 0.0 if math.isnan(constant) else constant)


def verdict(prediction: Prediction, seeds: list[Rows], references: list[Rows] | None = None) -> Verdict:
    """The verdict over training seeds.

    Args:
        prediction: the statement.
        seeds: rows of the variant's training seeds.
        references: rows of a variant whose memory carries nothing; None where the study has no such variant.
    """
    if missing := sum(not (seed.plain and seed.versus and seed.under) for seed in seeds):
        return Verdict(f"{UNDECIDED} ({len(seeds) - missing} of {len(seeds)} seeds run)")
    grounded = [seed for seed in seeds if _has_ground(prediction, seed)]
    if len(grounded) < LEAST_SEEDS:
        verb = "has" if len(grounded) == 1 else "have"
        text = f"{UNDECIDED} ({len(grounded)} of {len(seeds)} seeds {verb} ground, {LEAST_SEEDS} decide)"
        return Verdict(text, len(grounded))
    if needs_reference(prediction):
        return _against_reference(prediction, grounded, references)
    if prediction.expected == "to_chance":
        return _both(_fall(prediction, grounded), _level(prediction, grounded, "chance"))
    if prediction.expected in ("chance", "above_chance"):
        return _level(prediction, grounded, prediction.expected)
    return _fall(prediction, grounded)


def needs_reference(prediction: Prediction) -> bool:
    """True for a statement about a quantity that falls without memory too, unless a sham is the comparison."""
    return (
        prediction.quantity in DISTURBED
        and prediction.versus == "none"
        and prediction.expected in ("null", "lower", "higher")
    )


def _has_ground(prediction: Prediction, seed: Rows) -> bool:
    return prediction.where == "any" or uses_memory(seed.plain, seed.chance) is (prediction.where == "used")


def seed_effect(prediction: Prediction, seed: Rows) -> Effect:
    """The effect of one training seed that the prediction is about; empty where the prediction has no ground."""
    if not (seed.plain and seed.versus and seed.under) or not _has_ground(prediction, seed):
        return NO_EFFECT
    if prediction.expected in ("chance", "above_chance"):
        return _level_effect(prediction, seed)
    return _difference_effect(prediction, seed)


def _difference_effect(prediction: Prediction, seed: Rows) -> Effect:
    if prediction.quantity == "choice":
        return choice_difference(seed.versus, seed.under)
    if needs_reference(prediction) and prediction.quantity != "touch":
        return log_success_ratio(seed.versus, seed.under, prediction.quantity)
    return difference_of(seed.versus, seed.under, prediction.quantity)


def _level_effect(prediction: Prediction, seed: Rows) -> Effect:
    if seed.chance is None:
        return NO_EFFECT
    if prediction.quantity == "choice":
        return choice_level(seed.plain, seed.under, seed.chance)
    return level_of(seed.under, prediction.quantity, seed.chance)


def _fall(prediction: Prediction, seeds: list[Rows]) -> Verdict:
    expected = "lower" if prediction.expected == "to_chance" else prediction.expected
    return over_seeds([_difference_effect(prediction, seed) for seed in seeds], expected)


def _level(prediction: Prediction, seeds: list[Rows], expected: str) -> Verdict:
    return over_seeds([_level_effect(prediction, seed) for seed in seeds], expected)


def over_seeds(effects: list[Effect], expected: str) -> Verdict:
    """Tests the mean effect over seeds, once with every unknown touch against it and once for it."""
    counted = [effect for effect in effects if effect.n]
    if len(counted) < LEAST_SEEDS:
        return Verdict(f"{UNDECIDED} ({len(counted)} seeds have episodes, {LEAST_SEEDS} decide)", len(counted))
    variances = [effect.variance for effect in counted]
    at_low = seed_bounds([effect.low for effect in counted], variances)
    at_high = seed_bounds([effect.high for effect in counted], variances)
    texts = {judge(expected, bounds, MARGIN) for bounds in (at_low, at_high)}
    crosses = at_low.value < 0 < at_high.value  # refuted from both sides, and an effect of zero lies between
    if len(texts) == 1 and not (crosses and texts == {REFUTED} and expected in ("null", "chance")):
        text = texts.pop()
    else:
        text = f"{UNDECIDED} (the episodes that lost their touch decide)"
    return Verdict(text, len(counted), at_low, at_high)


def _against_reference(prediction: Prediction, seeds: list[Rows], references: list[Rows] | None) -> Verdict:
    """Compares the variant's effects with those of a variant whose memory carries nothing."""
    complete = [seed for seed in references or [] if seed.plain and seed.under]
    if len(complete) < LEAST_SEEDS:
        return Verdict(f"{UNDECIDED} (no reference variant with {LEAST_SEEDS} seeds)", len(seeds))
    effects, others = ([_difference_effect(prediction, seed) for seed in group] for group in (seeds, complete))
    margin = MARGIN if prediction.quantity == "touch" else LOG_MARGIN
    return against_effects(effects, others, prediction.expected, margin)


def against_effects(effects: list[Effect], others: list[Effect], expected: str, margin: float) -> Verdict:
    """Tests the difference between the mean effect over a variant's seeds and that over a reference's seeds.

    Args:
        effects: an effect per training seed of the variant.
        others: the same of a variant whose memory carries nothing.
        expected: "null", "lower" or "higher".
        margin: the largest difference that is null.
    """
    groups = [[effect for effect in group if effect.n] for group in (effects, others)]
    values, variances = ([[getattr(e, name) for e in group] for group in groups] for name in ("low", "variance"))
    bounds = welch_bounds(values[0], values[1], variances[0], variances[1])
    return Verdict(judge(expected, bounds, margin), len(effects), bounds, bounds)


def judge(expected: str, bounds: Bounds, margin: float) -> str:
    """The verdict on a mean effect from its one-sided 95 % limits.

    A direction is supported where one limit excludes no effect, and refuted where the other excludes an effect of the
    margin. `null` and `chance` are supported by the equivalence test, and refuted beyond the margin. A statement that
    an effect is small needs EQUIVALENCE_SEEDS.

    Args:
        expected: a word of `KINDS` but `to_chance`.
        bounds: limits of the effect; for `chance` and `above_chance` of the rate minus chance.
        margin: the largest effect that is null.
    """
    if math.isnan(bounds.low):
        return UNDECIDED
    is_enough = bounds.n >= EQUIVALENCE_SEEDS
    if expected in ("null", "chance"):
        if is_enough and bounds.is_within(margin):
            return SUPPORTED
        return REFUTED if bounds.low > margin or bounds.high < -margin else UNDECIDED
    least, most = (-bounds.high, -bounds.low) if expected == "lower" else (bounds.low, bounds.high)
    if least > 0:
        return SUPPORTED
    return REFUTED if is_enough and most < margin else UNDECIDED


def _both(first: Verdict, second: Verdict) -> Verdict:
    """A fall, and the level that it reaches: supported where both are, refuted where one is."""
    words = [each.text.split(" ")[0] for each in (first, second)]
    if REFUTED in words:
        text = REFUTED
    elif words == [SUPPORTED, SUPPORTED]:
        text = SUPPORTED
    else:
        text = next(each.text for each in (first, second) if each.text.startswith(UNDECIDED))
    return Verdict(text, first.seeds, first.at_low, first.at_high)


def verdict_frame(
    cells: list[CellRecords], predictions: Iterable[Prediction], registrations: Mapping[Prediction, str] | None = None
) -> pd.DataFrame:
    """A line per prediction, variant and training seed; `together` is the verdict over the variant's seeds.

    Args:
        cells: the cells with their rows.
        predictions: the predictions.
        registrations: prediction → whether it was registered before its rows; a prediction that is missing was not.
    """
    lines = []
    by_label: dict[str, list[CellRecords]] = {}
    for label, cell in labelled(cells):
        by_label.setdefault(label, []).append(cell)
    for number, prediction in enumerate(predictions, start=1):
        for label, several in by_label.items():
            if several[0].variant in prediction.variants:
                registered = (registrations or {}).get(prediction, NOT_REGISTERED)
                lines += [
                    {"prediction": number, "registration": registered} | line
                    for line in _lines(prediction, label, several, cells)
                ]
    return pd.DataFrame(lines)


def _lines(
    prediction: Prediction, label: str, several: list[CellRecords], cells: list[CellRecords]
) -> list[dict[str, object]]:
    seeds = [_rows_of(prediction, cell) for cell in several]
    reference = find_reference(several[0], cells)
    silent = [_never_fired(prediction, cell) for cell in several]
    undefined = {prediction.intervention, prediction.versus} & several[0].not_applicable.keys()
    if undefined:
        together = Verdict(NOT_APPLICABLE)
    elif any(silent):
        together = Verdict(f"{UNDECIDED} ({NEVER_FIRED} in {sum(silent)} of {len(silent)} seeds)")
    else:
        together = verdict(
            prediction, seeds, None if reference is None else [_rows_of(prediction, c) for c in reference]
        )
    common = {
        "text": prediction.text,
        "variant": label,
        "together": together.text,
        "evidence": together.evidence,
        "intervention": prediction.intervention,
        "expected": prediction.expected,
        "quantity": prediction.quantity,
        "versus": prediction.versus,
        "where": prediction.where,
        "protocol": prediction.protocol,
        "reference": reference[0].variant if reference and needs_reference(prediction) else None,
    }
    return [
        common
        | {"seed": cell.cell.seed}
        | _seed_columns(prediction, rows, is_silent)
        | ({"effect": NOT_APPLICABLE} if undefined else {})
        for cell, rows, is_silent in zip(several, seeds, silent, strict=True)
    ]


def _seed_columns(prediction: Prediction, rows: Rows, is_silent: bool) -> dict[str, object]:
    """The effect of one training seed, or the reason why there is none."""
    effect = seed_effect(prediction, rows)
    if is_silent:
        state = NEVER_FIRED
    elif not (rows.plain and rows.versus and rows.under):
        state = NOT_RUN
    else:
        state = effect.text if _has_ground(prediction, rows) else NO_GROUND
    return {"effect": state, "n": effect.n, "effect_low": effect.low, "effect_high": effect.high}


def find_reference(cell: CellRecords, cells: list[CellRecords]) -> list[CellRecords] | None:
    """The cells of the first variant whose memory has a state that carries nothing, with the same training length.

    None where there is no such variant beside the cell's own.
    """
    variants = dict.fromkeys(
        each.variant
        for each in cells
        if each.cell.memory.has_state
        and not each.cell.memory.recurs
        and each.variant != cell.variant
        and each.cell.budget.updates == cell.cell.budget.updates
    )
    if not variants:
        return None
    name, updates = next(iter(variants)), cell.cell.budget.updates
    return [each for each in cells if each.variant == name and each.cell.budget.updates == updates]


def _conditions(cell: CellRecords) -> tuple[dict, dict, set]:
    """Rows, chance and silent conditions of a cell, those of its grids included."""
    rows, chances, silent = dict(cell.rows), dict(cell.chance), set(cell.never_fired)
    for point in (point for grid in cell.grids for point in grid.points):
        if point.never_fired:
            silent.add((point.protocol, point.intervention))
        rows.setdefault((point.protocol, point.intervention), point.rows)
        chances.setdefault(point.protocol, point.chance)
    return rows, chances, silent


def _rows_of(prediction: Prediction, cell: CellRecords) -> Rows:
    rows, chances, _ = _conditions(cell)
    protocol = prediction.protocol or next(iter(cell.chance))
    plain, versus, under = (
        rows.get((protocol, name), []) for name in ("none", prediction.versus, prediction.intervention)
    )
    return Rows(plain, versus, under, chances.get(protocol))


def _never_fired(prediction: Prediction, cell: CellRecords) -> bool:
    protocol = prediction.protocol or next(iter(cell.chance))
    return bool(_conditions(cell)[2] & {(protocol, prediction.versus), (protocol, prediction.intervention)})


def verdict_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per prediction and variant with the verdict and its evidence, and a column per training seed."""
    index = ["prediction", "text", "registration", "variant", "together", "evidence"]
    table = pivot(frame, index, "seed", lambda group: group.iloc[0]["effect"], seeds_of(frame), seed_name)
    names = {"prediction": "", "text": "prediction", "together": "verdict", "evidence": "mean effect over seeds"}
    return table.rename(columns=names)
