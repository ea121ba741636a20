"""The file by-seed.md of a report: every rate and paired difference by training seed, with intervals and counts."""

from __future__ import annotations

import pandas as pd

from analysis import intervention_tables, tables
from analysis.frames import METRIC_TITLES, interventions_in_order, metric_of, metrics_of
from analysis.intervention_frames import quantities_of
from analysis.paired import QUANTITY_TITLES

NAME = "by-seed.md"
RATES = "Rates: rate [95 % Wilson interval] count/n of one trained policy."


def by_seed_file(frame: pd.DataFrame, pairs: pd.DataFrame, title: str, words: str = "") -> str:
    """Markdown with every table of a study.

    Args:
        frame: the tidy frame of rates.
        pairs: the frame of paired differences (`paired_frame`); may be empty.
        title: the study's title.
        words: paragraph that explains paired differences.
    """
    text = [f"# {title}: results by training seed", "", RATES, ""]
    if words and len(pairs):
        text += [words, ""]
    for protocol, lines in frame.groupby("protocol", sort=False):
        text += [f"## `{protocol}`", "", *_rates(lines)]
        if len(pairs):
            text += _pairs(pairs[pairs["protocol"] == protocol])
    return "\n".join(text)


def _rates(lines: pd.DataFrame) -> list[str]:
    text = []
    for metric in metrics_of(lines):
        table = tables.by_seed(lines, metric, "none", counts=True)
        heading = f"{METRIC_TITLES[metric].capitalize()}, without intervention:"
        text += [heading, "", tables.to_markdown(table), ""]
    metric = metric_of(lines)
    for name in interventions_in_order(lines):
        if name != "none":
            table = tables.by_seed(lines, metric, name, counts=True)
            text += [f"{METRIC_TITLES[metric].capitalize()} under `{name}`:", "", tables.to_markdown(table), ""]
    return text


def _pairs(lines: pd.DataFrame) -> list[str]:
    if lines.empty:
        return []
    text = []
    for quantity in quantities_of(lines):
        table = intervention_tables.difference_table(lines, quantity)
        text += [f"Paired difference of {QUANTITY_TITLES[quantity]}:", "", tables.to_markdown(table), ""]
    follow = intervention_tables.follow_table(lines)
    if not follow.empty:
        text += ["Object touched first, as shares of all episodes that sum to 1:", "", tables.to_markdown(follow), ""]
    return text
