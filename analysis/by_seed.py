"""What a results block has no room for: every rate, paired difference and follow rate of an intervention, by training
seed, with intervals and counts."""

from __future__ import annotations

import pandas as pd

from analysis import causal, tables
from analysis.frames import READING_TITLES, reading_of

NAME = "by-seed.md"
QUANTITY_TITLES = {
    "choice": "choice accuracy given a touch",
    "own": "own target, of all episodes",
    "success": "success",
}


def quantities_of(lines: pd.DataFrame) -> tuple[str, ...]:
    """Of one protocol's paired differences, those that it has, what it is drawn by first: the plain episodes tell, as
    there may be no others."""
    return tuple(QUANTITY_TITLES) if reading_of(lines) == "choice" else ("success",)


def by_seed_file(frame: pd.DataFrame, changed: pd.DataFrame, title: str, words: str) -> str:
    """Markdown of all tables of interventions, of the tidy frame and that of paired differences (`causal.causal`)."""
    text = [
        f"# {title}: interventions by training seed",
        "",
        "Rates: [95 % Wilson interval] count/n of one trained policy. What was not trained stands in the results "
        "block: nothing intervenes on it.",
        "",
        words,
        "",
    ]
    for protocol, lines in frame.groupby("protocol", sort=False):
        text += [f"## `{protocol}`", ""]
        reading = reading_of(lines)
        kinds = lines.sort_values("order", kind="stable")["intervention"].drop_duplicates()
        for kind in (one for one in kinds if one != "none"):
            table = tables.by_seed(lines, reading, kind, counts=True)
            text += [f"{READING_TITLES[reading].capitalize()} under `{kind}`:", "", tables.to_markdown(table), ""]
        pairs = changed[changed["protocol"] == protocol] if len(changed) else changed
        if pairs.empty:
            continue
        for one in quantities_of(pairs):
            table = causal.difference_table(pairs, one)
            text += [f"Paired difference of {QUANTITY_TITLES[one]}:", "", tables.to_markdown(table), ""]
        follow = causal.follow_table(pairs)
        if not follow.empty:
            text += ["Whose target is chosen; shares are of all episodes and sum to 1:", ""]
            text += [tables.to_markdown(follow), ""]
    return "\n".join(text)
