"""The variants: seeds that learned, means, contrasts with the reference, cost, and published numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.baselines import IDEAL
from analysis.contrasts import CONTRAST_TITLES, p_text, stars
from analysis.frames import METRIC_TITLES, metrics_of
from analysis.learned import RULE, above_chance
from analysis.page.content import Content
from analysis.page.render import render
from analysis.page.section import Section
from analysis.tables import NO_VALUE
from sweeps.costs import NOTE
from sweeps.time_to_learn import METRIC


class VariantsSection(Section):
    """A table per protocol with a row per variant, and the planned contrasts."""

    title = "Variants"
    navigation = "variants"

    def applies(self, content: Content) -> bool:
        return len(content.plain) > 0

    def html(self, content: Content) -> str:
        tables = [
            {
                "protocol": protocol,
                "metrics": [(metric, METRIC_TITLES[metric]) for metric in metrics_of(lines)],
                "rows": list(_rows(content, lines)),
                "below": list(_below(content, protocol, lines)),
                "published": _published(content, protocol),
            }
            for protocol, lines in content.plain.groupby("protocol", sort=False)
        ]
        return render(
            content,
            "variants.html",
            tables=tables,
            contrasts=list(_contrasts(content)),
            rule=RULE,
            cost_note=NOTE,
        )


def _rows(content: Content, lines: pd.DataFrame) -> Iterator[dict[str, Any]]:
    metrics = metrics_of(lines)
    for label in content.labels:
        seeds = lines[lines["label"] == label]
        if seeds.empty:
            yield {"label": label, "seeds": None}
            continue
        yield {
            "label": label,
            "seeds": len(seeds),
            "learned": int(above_chance(seeds).sum()) if "choice" in metrics else None,
            "rates": {metric: seeds[f"{metric}_rate"] for metric in metrics},
            "frames": _count(seeds["frames"].iloc[0]),
            "cost": _cost(content, seeds["variant"].iloc[0]),
        }


def _count(value: Any) -> str:
    """A whole number with separators; a dash where earlier reports did not write the number."""
    return NO_VALUE if pd.isna(value) else f"{int(value):,}"


def _cost(content: Content, variant: str) -> dict[str, Any]:
    """The line of the variant's cost; empty where it is not known."""
    if content.costs.empty:
        return {}
    line = content.costs[content.costs["variant"] == variant]
    return {} if line.empty else line.iloc[0].to_dict()


def _below(content: Content, protocol: str, lines: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of baselines below the variants."""
    metrics = metrics_of(lines)
    for _, line in content.baselines.iterrows() if len(content.baselines) else ():
        if line["protocol"] == protocol:
            yield {
                "label": "random policy" if line["policy"] == "random" else "scripted expert",
                "source": "baseline",
                "n": line["measured"],
                "rates": {metric: line[f"{metric}_rate"] for metric in metrics},
            }
    if pd.notna(lines["chance"].iloc[0]) and "choice" in metrics:
        rates = {metric: lines["chance"].iloc[0] if metric == "choice" else float("nan") for metric in metrics}
        yield {"label": IDEAL, "source": "expectation", "n": None, "rates": rates}


def _published(content: Content, protocol: str) -> list[dict[str, Any]]:
    """The published numbers on the protocol's task, the highest first."""
    if content.published.empty:
        return []
    of_task = content.published[content.published["protocol"] == protocol]
    lines = of_task.sort_values("value", ascending=False, kind="stable").to_dict("records")
    return [line | {"n": "" if pd.isna(line["n"]) else int(line["n"])} for line in lines]


def _contrasts(content: Content) -> Iterator[dict[str, Any]]:
    """The planned contrasts: the primary family first."""
    if content.contrasts.empty:
        return
    of_rates = content.contrasts[content.contrasts["metric"] != METRIC]
    for (protocol, length), lines in of_rates.groupby(["protocol", "U"], sort=False, dropna=False):
        heading = f"{protocol}, after {length:.0f} updates" if pd.notna(length) else protocol
        ordered = lines.sort_values("primary", ascending=False, kind="stable")
        yield {"heading": heading, "lines": [contrast_entry(line) for _, line in ordered.iterrows()]}


def contrast_entry(line: pd.Series) -> dict[str, Any]:
    """A line of the contrasts with its texts."""
    p = line["p_holm"] if line["primary"] else line["p"]
    return line.to_dict() | {
        "title": CONTRAST_TITLES[line["metric"]],
        "p_text": "–" if pd.isna(p) else p_text(p),
        "stars": stars(line["p_holm"]) if line["primary"] and pd.notna(line["p_holm"]) else "",
    }
