"""The interventions as a heat table: the mean paired difference over seeds, every sham beside its intervention."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.frames import NOT_APPLICABLE, NOT_RUN, interventions_in_order
from analysis.intervention_frames import quantities_of
from analysis.page.answer import intervention_sentences
from analysis.page.content import Content
from analysis.page.numbers import plain
from analysis.page.render import render
from analysis.page.section import Section
from analysis.paired import MARGIN, QUANTITY_TITLES
from analysis.shams import with_shams


class InterventionsSection(Section):
    """A table per protocol and quantity with a row per intervention and a column per variant."""

    title = "Interventions on the memory"
    navigation = "interventions"

    def applies(self, content: Content) -> bool:
        return len(content.pairs) > 0

    def html(self, content: Content) -> str:
        tables = [
            table
            for protocol, lines in content.pairs.groupby("protocol", sort=False)
            for quantity in _quantities(lines)
            if (table := _table(content, protocol, lines, quantity))["rows"]
        ]
        sentences = intervention_sentences(content)
        return render(content, "interventions.html", tables=tables, margin=MARGIN, sentences=sentences)


def _quantities(lines: pd.DataFrame) -> tuple[str, ...]:
    """Quantities of a protocol; the donor's target where donors were used."""
    donors = ("follow",) if (lines["follow_n"] > 0).any() else ()
    return (*quantities_of(lines), *donors)


def _table(content: Content, protocol: str, lines: pd.DataFrame, quantity: str) -> dict[str, Any]:
    columns = [label for label in content.labels if label in set(lines["variant"])]
    rows: list[dict[str, Any]] = []

    def cells(name: str) -> list[dict[str, Any]]:
        of_name = lines[lines["intervention"] == name]
        by_label = {label: of_name[of_name["variant"] == label] for label in columns}
        return [
            _cell(of_label, quantity, NOT_APPLICABLE if (label, name) in content.undefined else NOT_RUN)
            for label, of_label in by_label.items()
        ]

    shown = set(lines["intervention"] if quantity != "follow" else lines[lines["follow_n"] > 0]["intervention"])
    controlled = True  # the intervention of the next shams has a row
    for name, is_sham in with_shams(interventions_in_order(lines)):
        if not is_sham:
            controlled = name in shown
        if name in shown and is_sham and controlled:
            rows[-1]["shams"].append({"name": name, "cells": cells(name)})
        elif name in shown and not is_sham:
            rows.append({"name": name, "cells": cells(name), "shams": []})
    return {
        "protocol": protocol,
        "quantity": quantity,
        "title": QUANTITY_TITLES[quantity],
        "columns": columns,
        "has_shams": any(row["shams"] for row in rows),
        "rows": rows,
    }


def _cell(lines: pd.DataFrame, quantity: str, state: str) -> dict[str, Any]:
    """The mean over seeds, its colour, and every seed's difference with its interval; `state` without lines."""
    if lines.empty:
        return {"state": state, "value": float("nan"), "seeds": []}
    values = lines[f"{quantity}_difference"].dropna()
    if values.empty:
        return {"state": str(lines[f"{quantity}_text"].iloc[0]), "value": float("nan"), "seeds": []}
    mean = values.mean()
    seeds = [f"seed {line['seed']}: {line[f'{quantity}_text']}".replace("-", "−") for _, line in lines.iterrows()]
    return {
        "state": "",
        "value": mean,
        "n": len(values),
        "spread": "" if len(values) == 1 else f"± {plain(values.std())}",
        "strength": round(min(1.0, abs(mean) / 0.7), 3),
        "direction": "fall" if mean < 0 else "rise",
        "seeds": seeds,
    }
