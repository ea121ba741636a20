"""The words of verdicts: supported, refuted, undecided, not applicable."""

from __future__ import annotations

import pandas as pd

from analysis.frames import NOT_APPLICABLE
from analysis.verdicts import REFUTED, SUPPORTED, UNDECIDED

VERDICTS = (SUPPORTED, REFUTED, UNDECIDED, NOT_APPLICABLE)


def word_of(together: str) -> str:
    """The word of a verdict over seeds, without its reason."""
    return NOT_APPLICABLE if together == NOT_APPLICABLE else together.partition(" ")[0]


def counts_of(verdicts: pd.DataFrame) -> dict[str, int]:
    """Word → number of verdicts over seeds, one per prediction and variant; empty without predictions."""
    if verdicts.empty:
        return {}
    together = verdicts.drop_duplicates(["prediction", "variant"])["together"].map(word_of)
    counts = {word: int((together == word).sum()) for word in VERDICTS}
    return {word: count for word, count in counts.items() if count or word != NOT_APPLICABLE}
