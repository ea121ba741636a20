"""Differences of differences: an intervention against its own sham, and against a variant whose memory carries nothing.

A statement about memory content needs the intervention minus its sham in the same policy. A statement about memory use
needs the effect on the variant minus the effect on a variant whose memory carries nothing: of touch and of first-touch
accuracy apart, or of the logarithm of success where a task has no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from analysis.effects import Effect, choice_difference, difference_of, log_success_ratio
from analysis.intervention_frames import labelled
from analysis.verdicts import find_reference
from muvla.evaluation.records import CellRecords, EpisodeRow
from muvla.interventions import sham_of
from muvla.stats.hypotheses import Bounds, seed_bounds, welch_bounds

WORDS = (
    "Differences of differences over training seeds, with 90 % intervals of Student's t, or of Welch's t against "
    "another variant. `sham`: the intervention minus its sham in the same policies. `reference`: the effect minus the "
    "effect on a variant whose memory carries nothing. Two numbers bound an accuracy where touches were lost."
)
TITLES = {
    "touch": "touch rate",
    "choice": "first-touch accuracy given a touch",
    "log success": "logarithm of the ratio of success",
    "success": "success",
}
Change = Callable[[list[EpisodeRow], list[EpisodeRow]], Effect]


def _changes(rows: list[EpisodeRow], against_sham: bool) -> dict[str, Change]:
    """Quantity → its change between two conditions of one training seed."""
    if any(row.target is not None for row in rows):
        return {"touch": lambda a, b: difference_of(a, b, "touch"), "choice": choice_difference}
    if against_sham:
        return {"success": lambda a, b: difference_of(a, b, "success")}
    return {"log success": lambda a, b: log_success_ratio(a, b, "success")}


def difference_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """A line per protocol, variant, intervention, comparison and quantity.

    Columns: protocol, variant, intervention, comparison (`sham` or `reference`), against (the sham or the reference
    variant), quantity, seeds, value_low and value_high (equal where no touch was lost), low and high (one-sided 95 %
    limits).
    """
    by_label: dict[str, list[CellRecords]] = {}
    for label, cell in labelled(cells):
        by_label.setdefault(label, []).append(cell)
    lines = []
    for label, several in by_label.items():
        for protocol, name in dict.fromkeys(condition for cell in several for condition in cell.rows):
            if name != "none":
                common = {"protocol": protocol, "variant": label, "intervention": name}
                lines += [common | line for line in _lines(protocol, name, several, cells)]
    return pd.DataFrame(lines)


def _lines(
    protocol: str, name: str, several: list[CellRecords], cells: list[CellRecords]
) -> Iterator[dict[str, object]]:
    names = {intervention for cell in several for at, intervention in cell.rows if at == protocol}
    for sham in sham_of(name, names):
        for quantity, effects in _effects(protocol, sham, name, several, against_sham=True).items():
            bounds = [
                seed_bounds([getattr(effect, side) for effect in effects], [effect.variance for effect in effects])
                for side in ("low", "high")
            ]
            yield _line("sham", sham, quantity, *bounds)
    reference = find_reference(several[0], cells)
    if reference is None:
        return
    others = _effects(protocol, "none", name, reference, against_sham=False)
    for quantity, effects in _effects(protocol, "none", name, several, against_sham=False).items():
        bounds = [_against(effects, others.get(quantity, []), sides) for sides in (("low", "high"), ("high", "low"))]
        yield _line("reference", reference[0].variant, quantity, *bounds)


def _effects(
    protocol: str, first: str, second: str, cells: list[CellRecords], against_sham: bool
) -> dict[str, list[Effect]]:
    """Quantity → the change from one condition to another, of every training seed that has both."""
    by_quantity: dict[str, list[Effect]] = {}
    for cell in cells:
        before, after = cell.rows.get((protocol, first)), cell.rows.get((protocol, second))
        for quantity, change in _changes(before, against_sham).items() if before and after else ():
            effect = change(before, after)
            by_quantity.setdefault(quantity, []).extend([effect] if effect.n else [])
    return by_quantity


def _against(effects: list[Effect], others: list[Effect], sides: tuple[str, str]) -> Bounds:
    """The difference of two variants, with the unknown touches of each on one side."""
    values = [[getattr(effect, side) for effect in group] for group, side in zip((effects, others), sides, strict=True)]
    variances = [[effect.variance for effect in group] for group in (effects, others)]
    return welch_bounds(*values, *variances)


def _line(comparison: str, against: str, quantity: str, at_low: Bounds, at_high: Bounds) -> dict[str, object]:
    return {
        "comparison": comparison,
        "against": against,
        "quantity": quantity,
        "seeds": at_low.n,
        "value_low": at_low.value,
        "value_high": at_high.value,
        "low": at_low.low,
        "high": at_high.high,
    }


def difference_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One protocol: a row per variant, intervention and comparison, a column per quantity."""
    rows = []
    keys = ["variant", "intervention", "comparison", "against"]
    for identity, lines in frame.groupby(keys, sort=False):
        row = dict(zip(keys, identity, strict=True))
        row |= {TITLES[line["quantity"]]: _text(line) for _, line in lines.iterrows()}
        rows.append(row)
    return pd.DataFrame(rows).fillna("–")


def _text(line: pd.Series) -> str:
    """For example "-0.45 … -0.12 [-0.52, -0.03]"; "–" without seeds."""
    if pd.isna(line["value_low"]):
        return "–"
    value = f"{line['value_low']:+.2f}"
    if line["value_low"] != line["value_high"]:
        value += f" … {line['value_high']:+.2f}"
    return value if pd.isna(line["low"]) else f"{value} [{line['low']:+.2f}, {line['high']:+.2f}]"
