"""Tables of rates with their intervals, one entry per training seed, as text and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pandas as pd

from analysis.frames import (
    METRIC_TITLES,
    METRICS,
    NEVER_FIRED,
    NOT_APPLICABLE,
    NOT_RUN,
    has_several_lengths,
    interventions_in_order,
    metric_of,
    metrics_of,
)

NO_VALUE = "–"
ONLY_ERRORS = "only errors"  # a result whose every episode ended in an error
BUDGET = ("B", "W", "U", "frames")  # the columns of a table where the variants' budgets differ


def pivot(
    frame: pd.DataFrame,
    rows: Sequence[str],
    column: str,
    entry: Callable[[pd.DataFrame], str],
    values: Sequence[Any] | None = None,
    name: Callable[[Any], str] = str,
    missing: str = NOT_RUN,
) -> pd.DataFrame:
    """Table with a row per combination of `rows` and a column per value of `column`.

    Args:
        frame: tidy lines; the table's rows stand in the order in which they appear here.
        rows: columns of `frame` that identify a row of the table.
        column: column of `frame` whose values become columns of the table.
        entry: text of the lines of one row and column.
        values: values of `column` in order; in order of appearance by default.
        name: heading of a value.
        missing: entry of a row and column without lines.

    Returns:
        A frame with columns `rows` and `name(value)` per value; empty if `frame` has no lines.
    """
    values = list(frame[column].drop_duplicates() if values is None else values)
    table = []
    for key, lines in frame.groupby(list(rows), sort=False, dropna=False):
        groups = dict(list(lines.groupby(column, sort=False)))
        entries = {name(value): entry(groups[value]) if value in groups else missing for value in values}
        table.append(dict(zip(rows, key, strict=True)) | entries)
    return pd.DataFrame(table)


def seed_name(seed: int) -> str:
    return f"seed {seed}"


def seeds_of(frame: pd.DataFrame) -> list[int]:
    return sorted(frame["seed"].unique())


def entry(line: pd.Series, metric: str, counts: bool = False, interval: bool = True) -> str:
    """Text of a rate, for example "0.97 [0.94, 0.99] 194/200 (+3 errors)".

    Episodes that ended in an error are in no rate; the text counts them. A dash stands where nothing was measured.

    Args:
        line: line of a tidy frame.
        metric: key of `METRICS`.
        counts: append the counts, 194/200.
        interval: append the 95 % Wilson interval.
    """
    if line.get("never_fired"):
        return NEVER_FIRED
    errors = f" (+{line['errors']} errors)" if line["errors"] else ""
    rate = line[f"{metric}_rate"]
    if pd.isna(rate):
        return NO_VALUE + errors
    text = f"{rate:.2f}"
    if interval:
        text += f" [{line[f'{metric}_low']:.2f}, {line[f'{metric}_high']:.2f}]"
    if counts:
        text += " {}/{}".format(*(int(line[column]) for column in METRICS[metric]))
    return text + errors


def identified(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The frame in the order of tables, and the columns that identify a variant's row.

    Training lengths stand apart, and U is a column, where a variant has several of them. Otherwise the columns of
    `BUDGET` in which the variants differ follow the variant's name.
    """
    if has_several_lengths(frame):
        return frame.sort_values(["U", "order"], kind="stable"), ["U", "variant"]
    budget = [column for column in BUDGET if frame[column].nunique() > 1]
    return frame.sort_values("order", kind="stable"), ["variant", *budget]


def main_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One protocol without intervention: a row per variant and training seed, a column per metric."""
    lines, identity = identified(frame[frame["intervention"] == "none"])
    lines = _seeds_sorted(lines, identity)
    table = lines[identity].assign(seed=lines["seed"], n=lines["measured"])
    for metric in metrics_of(frame):
        table[METRIC_TITLES[metric]] = [entry(line, metric) for _, line in lines.iterrows()]
    return table.reset_index(drop=True)


def _seeds_sorted(lines: pd.DataFrame, identity: list[str]) -> pd.DataFrame:
    """The lines with each variant's training seeds in order; the order of the variants stays."""
    place = lines.groupby(identity, sort=False, dropna=False).ngroup()
    return lines.assign(_place=place).sort_values(["_place", "seed"], kind="stable").drop(columns="_place")


def by_seed(frame: pd.DataFrame, metric: str, intervention: str, counts: bool = False) -> pd.DataFrame:
    """Rates of one protocol: a row per variant, a column per training seed.

    Args:
        frame: tidy lines of one protocol.
        metric: key of `METRICS`.
        intervention: canonical name, or "none".
        counts: append the counts to every rate.
    """
    lines, identity = identified(frame[frame["intervention"] == intervention])
    return pivot(
        lines, identity, "seed", lambda group: entry(group.iloc[0], metric, counts), seeds_of(lines), seed_name
    )


def intervention_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One protocol's metric: a row per variant and training seed, a column per intervention."""
    lines, identity = identified(_intervened(frame))
    metric = metric_of(frame)
    return pivot(
        _seeds_sorted(lines, identity),
        [*identity, "seed"],
        "intervention",
        lambda group: entry(group.iloc[0], metric),
        interventions_in_order(frame),
    )


def _intervened(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of variants that have an intervention."""
    return frame[frame["variant"].isin(frame[frame["intervention"] != "none"]["variant"])]


def short_intervention_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One protocol's metric: a row per intervention, a column per variant, rates by training seed without intervals.

    Empty without interventions.
    """
    metric, seeds = metric_of(frame), seeds_of(frame)
    lines, identity = identified(_intervened(frame))
    labels = lines.apply(_label, axis=1, identity=identity) if len(lines) else []
    lines = lines.assign(label=labels, name=lines["intervention"].map(lambda x: x if x == "none" else f"`{x}`"))
    columns = list(lines["label"].drop_duplicates())
    order = {name: i for i, name in enumerate(interventions_in_order(frame))}
    lines = lines.sort_values("intervention", key=lambda names: names.map(order), kind="stable")

    def rates(group: pd.DataFrame) -> str:
        entries = {line["seed"]: entry(line, metric, interval=False) for _, line in group.iterrows()}
        return by_seeds(entries, seeds)

    return pivot(lines, ["name"], "label", rates, columns).rename(columns={"name": "intervention"})


def mark_not_applicable(table: pd.DataFrame, pairs: Collection[tuple[str, str]]) -> pd.DataFrame:
    """The table with "not applicable" where an intervention is undefined for a variant and so was never run.

    Args:
        table: a row per variant and a column per intervention, or a row per intervention and a column per variant.
        pairs: (variant, intervention).
    """
    table = table.copy()
    for variant, name in pairs:
        if "variant" in table and name in table:
            table.loc[(table["variant"] == variant) & (table[name] == NOT_RUN), name] = NOT_APPLICABLE
        elif "intervention" in table and variant in table:
            rows = table["intervention"].str.contains(f"`{name}`", regex=False)
            table.loc[rows & (table[variant] == NOT_RUN), variant] = NOT_APPLICABLE
    return table


def _label(line: pd.Series, identity: list[str]) -> str:
    return ", ".join([line["variant"], *(f"{name} = {line[name]}" for name in identity if name != "variant")])


def by_seeds(entries: dict[int, str], seeds: list[int]) -> str:
    """Entries by training seed, "0.97 / 0.94 / not run"; a state that all seeds share is written once."""
    texts = [entries.get(seed, NOT_RUN) for seed in seeds]
    return texts[0] if set(texts) in ({NOT_RUN}, {NEVER_FIRED}) else " / ".join(texts)


def set_table(frame: pd.DataFrame, sets: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """Unweighted means of the success rates over the protocols of each set.

    Returns:
        A row per set, variant and training seed, and a column per intervention. A mean needs every result of its set.
    """
    names, tables = interventions_in_order(frame), []
    for set_name, protocols in sets.items():
        lines, identity = identified(frame[frame["protocol"].isin(protocols)])
        tables.append(
            pivot(
                _seeds_sorted(lines, identity).assign(set=set_name),
                ["set", *identity, "seed"],
                "intervention",
                lambda group, protocols=protocols: _mean_entry(group, protocols),
                names,
            )
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _mean_entry(lines: pd.DataFrame, protocols: tuple[str, ...]) -> str:
    """Text of a mean, "0.62 over 5 (+3 errors)", or the missing protocols, each with its reason.

    A protocol is missing because it was not run, the intervention never fired, or every episode ended in an error. A
    reason that all protocols share is written once.
    """
    measured = lines[lines["success_rate"].notna()]
    errors = f" (+{lines['errors'].sum()} errors)" if lines["errors"].any() else ""
    silent = dict(zip(lines["protocol"], lines["never_fired"], strict=True))
    missing = {
        protocol: NOT_RUN if protocol not in silent else NEVER_FIRED if silent[protocol] else ONLY_ERRORS
        for protocol in protocols
        if protocol not in set(measured["protocol"])
    }
    reasons = set(missing.values())
    if len(missing) == len(protocols) and len(reasons) == 1:
        return f"{NO_VALUE}{errors}" if reasons == {ONLY_ERRORS} else reasons.pop()
    if missing:
        named = ", ".join(f"{protocol} ({reason})" for protocol, reason in missing.items())
        return f"{NO_VALUE} without {named}{errors}"
    return f"{measured['success_rate'].mean():.2f} over {len(protocols)}{errors}"


def to_markdown(table: pd.DataFrame) -> str:
    header = "| " + " | ".join(map(str, table.columns)) + " |"
    rule = "|" + "---|" * len(table.columns)
    rows = ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join([header, rule, *rows])


def to_text(table: pd.DataFrame) -> str:
    """Aligned columns for a terminal."""
    widths = [max(len(str(v)) for v in [name, *table[name]]) for name in table.columns]
    lines = [table.columns, *table.itertuples(index=False)]
    return "\n".join("  ".join(str(v).ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)
