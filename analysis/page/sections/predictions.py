"""The predictions with their verdicts, which a reader filters by verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.page.content import Content
from analysis.page.render import render
from analysis.page.section import Section
from analysis.page.verdict_words import counts_of, word_of


class PredictionsSection(Section):
    """A row per prediction and variant, with its evidence and the effect of every seed."""

    title = "Predictions"
    navigation = "predictions"

    def applies(self, content: Content) -> bool:
        return len(content.verdicts) > 0

    def html(self, content: Content) -> str:
        return render(
            content,
            "predictions.html",
            lines=list(_lines(content.verdicts)),
            counts=counts_of(content.verdicts),
            has_evidence="evidence" in content.verdicts,
        )


def _lines(verdicts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (number, label), seeds in verdicts.groupby(["prediction", "variant"], sort=False):
        first = seeds.iloc[0]
        effects = "effect" if "effect" in seeds else "verdict"  # reports of the former rule judged every seed
        together = str(first["together"])
        yield {
            "number": number,
            "text": first["text"],
            "label": label,
            "word": word_of(together),
            "reason": together.removeprefix(word_of(together)).strip(" ()"),
            "registration": first.get("registration", ""),
            "evidence": "" if "evidence" not in seeds or pd.isna(first["evidence"]) else first["evidence"],
            "seeds": [(line["seed"], str(line[effects])) for _, line in seeds.iterrows()],
        }
