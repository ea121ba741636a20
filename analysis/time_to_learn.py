"""Success at the updates of a training, and the number of updates until a share of the expert's success."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.frames import has_several_lengths, rates_of
from analysis.group_means import compare_means
from analysis.intervention_frames import labelled
from analysis.learned import learned_contrast
from analysis.tables import NO_VALUE
from muvla.evaluation.records import Baselines, CellRecords, summarise
from muvla.stats.hypotheses import logrank_p
from sweeps.time_to_learn import METRIC

NAME = "updates.csv"  # file of a report: `update_frame`
SHARE = 0.9  # of the expert's success: a policy that reaches it has learned
TITLE = f"number of updates to {SHARE:g} of the expert's success"
WORDS = (
    "A time is the first declared update whose weights reach the level. A seed that never reaches the level is "
    "censored at its last update. Means are restricted: a censored seed counts with the last update that both "
    "variants have. A difference is the variant's restricted mean minus the reference's, with the 95 % interval of "
    "Welch (of the bootstrap from ten seeds). p belongs to the log-rank test over all regroupings of the seeds."
)


def update_frame(cells: list[CellRecords], baselines: Mapping[str, Baselines]) -> pd.DataFrame:
    """A line per cell and update; a cell that lacks one of its updates has none.

    Args:
        cells: the cells with their rows.
        baselines: protocol id → baselines, for the expert's success.

    Returns:
        Columns order, variant, label (the variant with its training length where the variant has several), seed, train,
        U, protocol, update, measured, successes, success_rate, success_low, success_high (95 % Wilson limits) and goal:
        SHARE of the expert's success on the same episodes; of 1 where the expert was not run.
    """
    lines = []
    for order, (label, cell) in enumerate(labelled(cells)):
        during = cell.at_updates
        if during is None or set(during.rows) != set(during.planned):
            continue
        goal = SHARE * expert_success(baselines.get(during.protocol, Baselines()))
        head = {"order": order, "variant": cell.variant, "label": label, "seed": cell.cell.seed, "train": cell.train}
        head |= {"U": cell.cell.budget.updates, "protocol": during.protocol}
        for update in during.planned:
            rates = rates_of(during.rows[update])
            names = ("measured", "successes", "success_rate", "success_low", "success_high")
            lines.append(head | {"update": update} | {name: rates[name] for name in names} | {"goal": goal})
    return pd.DataFrame(lines)


def expert_success(baselines: Baselines) -> float:
    """The expert's success; 1 where the expert was not run."""
    rate = summarise(baselines.rows["expert"]).success_rate if "expert" in baselines.rows else None
    return 1.0 if rate is None else rate


def times_frame(updates: pd.DataFrame) -> pd.DataFrame:
    """A line per variant, training length and seed.

    Args:
        updates: `update_frame`.

    Returns:
        Columns order, variant, label, U, seed, protocol, time (updates), reached (False for a censored time) and last
        (the last update that was evaluated).
    """
    lines = []
    for (protocol, label, seed), cell in updates.groupby(["protocol", "label", "seed"], sort=False):
        ordered = cell.sort_values("update")
        first, last = ordered[ordered["success_rate"] >= ordered["goal"]]["update"], ordered["update"].iloc[-1]
        head = {name: ordered[name].iloc[0] for name in ("order", "variant", "U")}
        time = {"time": last if first.empty else first.iloc[0], "reached": not first.empty, "last": last}
        lines.append(head | {"label": label, "seed": seed, "protocol": protocol} | time)
    return pd.DataFrame(lines)


def time_contrasts(updates: pd.DataFrame, pairs: tuple[tuple[str, str], ...]) -> Iterator[list[dict[str, Any]]]:
    """The lines of `analysis.contrasts.contrast_frame` per protocol and training length, without Holm's correction.

    Args:
        updates: `update_frame`.
        pairs: (variant, reference).
    """
    times = times_frame(updates)
    for protocol, of_protocol in times.groupby("protocol", sort=False):
        lengths = of_protocol.groupby("U") if has_several_lengths(of_protocol) else [(math.nan, of_protocol)]
        for length, lines in lengths:
            by_variant = dict(list(lines.groupby("variant", sort=False)))
            head = {"protocol": protocol, "U": length, "metric": METRIC}
            yield [
                head | {"variant": first, "reference": second} | _contrast(by_variant[first], by_variant[second])
                for first, second in pairs
                if first in by_variant and second in by_variant
            ]


def _contrast(lines: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    horizon = min(lines["last"].max(), reference["last"].max())
    (first, reached), (second, other_reached) = (_until(horizon, part) for part in (lines, reference))
    tested = {"p": logrank_p((first, reached), (second, other_reached)), "correlation": math.nan}
    return compare_means(first, second) | tested | learned_contrast(reached, other_reached)


def _until(horizon: int, times: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The times up to a horizon, and whether the goal was reached by then."""
    return times["time"].clip(upper=horizon), times["reached"] & (times["time"] <= horizon)


def drawn_lines(updates: pd.DataFrame) -> pd.DataFrame:
    """The lines of a figure: a variant of several training lengths has a panel for each."""
    return updates.assign(variant=updates["label"])


def time_table(updates: pd.DataFrame) -> pd.DataFrame:
    """A row per variant and training length: seeds that reached the goal, and every seed's time."""
    rows = []
    for label, lines in times_frame(updates).groupby("label", sort=False):
        ordered = lines.sort_values("seed")
        row = {"variant": label, "seeds that reached the level": f"{int(ordered['reached'].sum())} of {len(ordered)}"}
        row |= {f"seed {line['seed']}": time_text(line) for _, line in ordered.iterrows()}
        rows.append(row)
    return pd.DataFrame(rows).fillna(NO_VALUE)


def time_text(line: pd.Series) -> str:
    """For example "200", or "> 400" for a censored time."""
    return f"{line['time']}" if line["reached"] else f"> {line['time']}"


def time_sentences(updates: pd.DataFrame) -> list[str]:
    """A sentence per protocol: how many seeds of every variant reached the goal, and after how many updates."""
    sentences = []
    for protocol, lines in times_frame(updates).groupby("protocol", sort=False) if len(updates) else ():
        of_protocol = updates[updates["protocol"] == protocol]
        texts = [_reached(label, of_label) for label, of_label in lines.groupby("label", sort=False)]
        sentences.append(
            f"Success of {of_protocol['goal'].max():.2f}, {SHARE:g} of the expert's, is reached at the updates "
            f"{', '.join(map(str, sorted(of_protocol['update'].unique())))} by {'; '.join(texts)}."
        )
    return sentences


def _reached(label: str, lines: pd.DataFrame) -> str:
    times = sorted(lines[lines["reached"]]["time"])
    text = f"{len(times)} of {len(lines)} training seeds of `{label}`"
    if not times:
        return text
    return f"{text} (after {times[0]})" if times[0] == times[-1] else f"{text} (after {times[0]} to {times[-1]})"
