"""Tables of paired differences and donor-following rates; a sham stands below the intervention that it controls for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from analysis.frames import NEVER_FIRED, interventions_in_order, variants_in_order
from analysis.intervention_frames import with_donors
from analysis.shams import sham_label, with_shams
from analysis.tables import NO_VALUE, by_seeds, pivot, seed_name, seeds_of

SHARES = ("own", "donor", "other", "none")


def ordered(frame: pd.DataFrame, by: Sequence[str] = ("variant", "intervention", "seed")) -> pd.DataFrame:
    """Lines sorted `by` these columns in the order of tables; `label` is the intervention's name there.

    Variants stand in the study's order, and a sham follows the intervention that it controls for.
    """
    names = with_shams(interventions_in_order(frame))
    places = {
        "variant": {variant: i for i, variant in enumerate(variants_in_order(frame))},
        "intervention": {name: i for i, (name, _) in enumerate(names)},
    }
    labels = {name: sham_label(name, is_sham) for name, is_sham in names}
    return frame.assign(label=frame["intervention"].map(labels)).sort_values(
        list(by), key=lambda column: column.map(places.get(column.name, lambda value: value)), kind="stable"
    )


def _by_variant_and_seed(frame: pd.DataFrame, entry: Callable[[pd.Series], str]) -> pd.DataFrame:
    lines = ordered(frame)
    table = pivot(lines, ["variant", "label"], "seed", lambda group: entry(group.iloc[0]), seeds_of(frame), seed_name)
    return table.rename(columns={"label": "intervention"})


def difference_table(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Paired differences of one protocol: a row per variant and intervention, a column per training seed."""
    return _by_variant_and_seed(frame, lambda line: line[f"{quantity}_text"])


def short_difference_table(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Paired differences of one protocol without intervals: a row per intervention, a column per variant."""
    seeds = seeds_of(frame)

    def by_seed(group: pd.DataFrame) -> str:
        return by_seeds({line["seed"]: _short(line, quantity) for _, line in group.iterrows()}, seeds)

    lines = ordered(frame, ("intervention", "variant"))
    table = pivot(lines, ["label"], "variant", by_seed, variants_in_order(frame))
    return table.rename(columns={"label": "intervention"})


def _short(line: pd.Series, quantity: str) -> str:
    value = line[f"{quantity}_difference"]
    return line[f"{quantity}_text"] if pd.isna(value) else f"{value:+.2f}"


def short_follow_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Donor-following rates of one protocol with their paired differences, for interventions that have donors.

    Returns:
        A row per variant and intervention, a column per training seed; empty without donors.
    """

    def entry(line: pd.Series) -> str:
        return f"{line['follow_with']:.2f} ({line['follow_text']})" if line["follow_n"] > 0 else line["follow_text"]

    donors = with_donors(frame)
    return pd.DataFrame() if donors.empty else _by_variant_and_seed(donors, entry)


def follow_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Donor-following rates of one protocol and the shares of first touches, a row per variant, intervention and seed.

    Empty without donors.
    """
    lines = with_donors(frame)
    if lines.empty:
        return pd.DataFrame()
    lines = ordered(lines)
    touches = [
        NEVER_FIRED if line["never_fired"] else " / ".join(_two_digits(line[f"share_{name}"]) for name in SHARES)
        for _, line in lines.iterrows()
    ]
    columns = {
        "variant": lines["variant"],
        "intervention": lines["label"],
        "seed": lines["seed"],
        "donor-following rate": lines["follow_rate_text"],
        "without it": lines["follow_without"].map(_two_digits),
        "difference": lines["follow_text"],
        "target / donor's target / other / none first": touches,
    }
    return pd.DataFrame(columns).reset_index(drop=True)


def _two_digits(value: float) -> str:
    return NO_VALUE if pd.isna(value) else f"{value:.2f}"
