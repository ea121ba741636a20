"""Verdicts on a study's predictions: of one training seed, and over the seeds of a variant.

docs/causality.md defines every word. A verdict over seeds counts the verdicts of seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import pandas as pd

from analysis.frames import NEVER_FIRED, NOT_RUN
from analysis.intervention_frames import labelled
from analysis.paired import MARGIN, Difference, Rate, difference, has_quantity, rate
from analysis.tables import pivot, seed_name, seeds_of
from muvla.evaluation.records import CellRecords, EpisodeRow
from sweeps.predictions import Prediction

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
NO_GROUND = "no ground"  # the plain run of a training seed does not meet the prediction's condition `where`
DECIDING_SEEDS = 2  # grounded seeds that a verdict over seeds needs; one seed in twenty is refuted by chance


@dataclass(frozen=True)
class Verdict:
    """The verdict of one training seed.

    `difference` is against the condition that the prediction names in `versus`; `rate` is that under the intervention.
    """

    text: str
    difference: Difference | None = None
    rate: Rate | None = None


@dataclass(frozen=True)
class Chance:
    """The rates that a policy without memory may reach in these very episodes.

    The targets of a block are not evenly shared, and a policy that always takes the same place is right as often as
    that place is the target.
    """

    least: float  # 1/N, or the rarest target's share of all measured episodes
    most: float  # 1/N, or the most frequent target's share of them
    constant: float  # 1/N, or the most frequent target's share of the episodes that the quantity counts

    @classmethod
    def of(cls, rows: Iterable[EpisodeRow], quantity: str, chance: float | None) -> Chance | None:
        """None where nothing bounds a policy without memory. For `follow`, the targets are the donors'."""
        if chance is None:
            return None
        rows = [row for row in rows if row.error is None]
        counted = [row for row in rows if has_quantity(row, quantity, row.donor_target) is not None]
        every = _target_shares(rows, quantity)
        return cls(min([chance, *every]), max([chance, *every]), max([chance, *_target_shares(counted, quantity)]))


def _target_shares(rows: list[EpisodeRow], quantity: str) -> list[float]:
    targets = Counter(row.donor_target if quantity == "follow" else row.target for row in rows)
    del targets[None]
    return [count / targets.total() for count in targets.values()]


def uses_memory(plain: list[EpisodeRow], chance: float | None) -> bool | None:
    """True if the plain run chooses, given a touch, better than any constant choice in these episodes.

    None where nothing bounds a policy without memory.
    """
    bound = Chance.of(plain, "choice", chance)
    return None if bound is None else rate(plain, "choice").low > bound.constant


def verdict(
    prediction: Prediction,
    plain: list[EpisodeRow],
    versus: list[EpisodeRow],
    rows: list[EpisodeRow],
    chance: float | None,
) -> Verdict:
    """Verdict of one training seed.

    Args:
        prediction: the statement.
        plain: rows without intervention.
        versus: rows of the condition that the intervention is compared with.
        rows: rows under the intervention.
        chance: accuracy without memory; None where nothing bounds it.
    """
    if not (plain and versus and rows):
        return Verdict(NOT_RUN)
    shift, level = difference(versus, rows, prediction.quantity), rate(rows, prediction.quantity)
    uses, bound = uses_memory(plain, chance), Chance.of(rows, prediction.quantity, chance)
    if prediction.where != "any" and uses is not (prediction.where == "used"):
        return Verdict(NO_GROUND, shift, level)
    judge: dict[str, Callable[[], str]] = {
        "null": lambda: _null(shift),
        "lower": lambda: _moved(-shift.high, -shift.low, shift.is_null),
        "higher": lambda: _moved(shift.low, shift.high, shift.is_null),
        "chance": lambda: _at(level, bound),
        "above_chance": lambda: _above(level, bound),
        "to_chance": lambda: _both(_moved(-shift.high, -shift.low, shift.is_null), _at(level, bound)),
    }
    return Verdict(judge[prediction.expected](), shift, level)


def _null(shift: Difference) -> str:
    if shift.is_null:
        return SUPPORTED
    return REFUTED if shift.low > MARGIN or shift.high < -MARGIN else UNDECIDED


def _moved(least: float, most: float, is_null: bool) -> str:
    """Verdict on a movement in the predicted direction, from its interval [least, most]."""
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
    return _moved(level.low - bound, level.high - bound, is_null=_at(level, chance) == SUPPORTED)


def _both(first: str, second: str) -> str:
    if REFUTED in (first, second):
        return REFUTED
    return SUPPORTED if first == second == SUPPORTED else UNDECIDED


def over_seeds(verdicts: Iterable[str]) -> str:
    """Verdict over the training seeds of a variant.

    Supported if all grounded seeds support the prediction, refuted if two refute it, given at least two grounded seeds.
    Otherwise undecided, with the number of seeds that are missing: a seed that has not run could change the verdict,
    and seeds in which the intervention never fired would leave a selection of seeds with long episodes.
    """
    verdicts = list(verdicts)
    if NOT_RUN in verdicts:
        return f"{UNDECIDED} ({len(verdicts) - verdicts.count(NOT_RUN)} of {len(verdicts)} seeds run)"
    if NEVER_FIRED in verdicts:
        return f"{UNDECIDED} ({NEVER_FIRED} in {verdicts.count(NEVER_FIRED)} of {len(verdicts)} seeds)"
    grounded = [text for text in verdicts if text != NO_GROUND]
    if len(grounded) < DECIDING_SEEDS:
        verb = "has" if len(grounded) == 1 else "have"
        return f"{UNDECIDED} ({len(grounded)} of {len(verdicts)} seeds {verb} ground)"
    if all(text == SUPPORTED for text in grounded):
        return SUPPORTED
    return REFUTED if grounded.count(REFUTED) >= DECIDING_SEEDS else UNDECIDED


def verdict_frame(cells: list[CellRecords], predictions: Iterable[Prediction]) -> pd.DataFrame:
    """A line per prediction, variant and training seed; `together` is the verdict over the variant's seeds."""
    lines = []
    for number, prediction in enumerate(predictions, start=1):
        by_label: dict[str, list[CellRecords]] = {}
        for label, cell in labelled(cells):
            if cell.variant in prediction.variants:
                by_label.setdefault(label, []).append(cell)
        for label, several in by_label.items():
            verdicts = [(cell, _cell_verdict(prediction, cell)) for cell in several]
            together = over_seeds(each.text for _, each in verdicts)
            for cell, each in verdicts:
                line = {"prediction": number, "text": prediction.text, "variant": label, "seed": cell.cell.seed}
                line |= {"verdict": each.text, "together": together}
                line |= {k: v for k, v in asdict(prediction).items() if k not in ("text", "variants")}
                line |= {f"difference_{k}": v for k, v in asdict(each.difference).items()} if each.difference else {}
                line["difference"] = each.difference.text if each.difference else ""
                line["rate"] = each.rate.text if each.rate else ""
                lines.append(line)
    return pd.DataFrame(lines)


def _cell_verdict(prediction: Prediction, cell: CellRecords) -> Verdict:
    rows, chances, silent = dict(cell.rows), dict(cell.chance), set(cell.never_fired)
    for point in (point for grid in cell.grids for point in grid.points):
        if point.never_fired:
            silent.add((point.protocol, point.intervention))
        rows.setdefault((point.protocol, point.intervention), point.rows)
        chances.setdefault(point.protocol, point.chance)
    protocol = prediction.protocol or next(iter(cell.chance))
    if silent & {(protocol, prediction.versus), (protocol, prediction.intervention)}:
        return Verdict(NEVER_FIRED)
    plain, versus, under = (
        rows.get((protocol, name), []) for name in ("none", prediction.versus, prediction.intervention)
    )
    return verdict(prediction, plain, versus, under, chances.get(protocol))


def verdict_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per prediction and variant, a column per training seed with the verdict and its interval."""
    table = pivot(
        frame,
        ["prediction", "text", "variant", "together"],
        "seed",
        lambda group: _with_evidence(group.iloc[0]),
        seeds_of(frame),
        seed_name,
    )
    return table.rename(columns={"prediction": "", "text": "prediction", "together": "verdict"})


def _with_evidence(line: pd.Series) -> str:
    texts = [line["verdict"]]
    if line["verdict"] not in (NOT_RUN, NEVER_FIRED):
        if line["expected"] in ("null", "lower", "higher", "to_chance"):
            texts.append(line["difference"])
        if line["expected"] in ("chance", "to_chance", "above_chance"):
            texts.append(f"({line['rate']})")
    return " ".join(texts)
