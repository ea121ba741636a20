"""The seeds that choose above chance: the count behind every answer sentence."""

from __future__ import annotations

from typing import Any

import pandas as pd
from scipy.stats import fisher_exact

from analysis.tables import identified
from muvla.stats.proportions import newcombe_unpaired

RULE = (
    "A training seed is above chance if the lower 95 % Wilson limit of its first-touch accuracy given a touch exceeds "
    "the best score without memory: the larger of chance and the share of the most frequent target."
)


def above_chance(lines: pd.DataFrame) -> pd.Series:
    """For each line of a tidy frame, whether `RULE` holds; False where nothing is chosen."""
    return lines["choice_low"] > lines[["chance", "best_constant"]].max(axis=1)


def above_chance_counts(plain: pd.DataFrame) -> pd.DataFrame:
    """Seeds above chance, without intervention: a row per variant with its identifying columns, `above` and `seeds`."""
    lines, identity = identified(plain.assign(above=above_chance(plain)))
    groups = lines.groupby(identity, sort=False, dropna=False)["above"]
    return groups.agg(above="sum", seeds="size").reset_index()


def above_chance_sentence(plain: pd.DataFrame) -> str:
    """The counts of all variants in one sentence, for the detailed report."""
    counts = []
    for _, row in above_chance_counts(plain).iterrows():
        length = f"U = {row['U']}, " if list(row.index).index("variant") else ""
        counts.append(f"{length}{row['variant']}: {row['above']} of {row['seeds']}")
    return f"{RULE} Seeds above chance, by variant: {'; '.join(counts)}."


def learned_contrast(learned: pd.Series, other: pd.Series) -> dict[str, Any]:
    """The seeds that learned of two variants: counts, 95 % interval of the difference of shares, Fisher's p.

    Args:
        learned: whether a training seed of the variant learned.
        other: the same of the reference.
    """
    counts, sizes = (int(learned.sum()), int(other.sum())), (len(learned), len(other))
    low, high = newcombe_unpaired(counts[0], sizes[0], counts[1], sizes[1])
    table = [[count, n - count] for count, n in zip(counts, sizes, strict=True)]
    return {
        "learned": counts[0],
        "reference_learned": counts[1],
        "learned_low": low,
        "learned_high": high,
        "learned_p": float(fisher_exact(table).pvalue),
    }
