"""The three baseline rows that result tables end with: a random policy, the scripted expert and the best memoryless
policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.frames import rates_of
from analysis.tables import NO_VALUE, entry
from muvla.evaluation.records import Baselines, CellRecords, EpisodeRow
from muvla.utils.code_version import comparable

IDEAL = "memoryless ideal"
UNTRAINED = "untrained"  # the baselines' column in a table with a column per training seed
NAMES = ("random", "expert")
ELSEWHERE = " †"  # marks a baseline whose rows have another origin than the cells' rows

# The parts of a provenance record in which baselines and cells should agree.
_ORIGIN: dict[str, Callable[[dict[str, Any]], str]] = {
    "code version": lambda record: comparable(record["code"]),
    "simulator": lambda record: str(record["simulator"] or "none"),
    "stand-ins": lambda record: ", ".join((record.get("environment") or {}).get("stand_in_assets", ())) or "none",
}


def baseline_entry(baselines: Baselines, name: str, metric: str, counts: bool = False) -> str:
    """A baseline's text under one metric: a rate, an expectation, or the reason why there is none.

    Args:
        baselines: the baselines of one protocol.
        name: `IDEAL` or one of `NAMES`.
        metric: key of `analysis.frames.METRICS`.
        counts: append the counts to a rate.
    """
    if name == IDEAL:
        expected = baselines.ideal.get(metric)
        return NO_VALUE if expected is None else f"{expected:.2f} (expected)"
    if name not in baselines.rows:
        return baselines.absent.get(name, "not run")
    line = pd.Series(rates_of(baselines.rows[name]), dtype=object)  # else its counts would be floats
    return entry(line, metric, counts)


def compared(baselines: Baselines, cells: list[CellRecords], protocol: str) -> Baselines:
    """The baselines with `differs` filled in.

    `differs` names each baseline whose code version, simulator or stand-in assets are not those of the cells' rows.
    """
    trained = [cell.provenance[id] for cell in cells for id in _used(cell.rows, protocol) if id in cell.provenance]
    differs = {}
    for name, rows in baselines.rows.items():
        records = [baselines.provenance[id] for id in {row.provenance for row in rows} if id in baselines.provenance]
        texts = [text for part in _ORIGIN if trained and (text := _difference(part, records, trained))]
        if texts:
            differs[name] = ", ".join(texts)
    return replace(baselines, differs=differs)


def _difference(part: str, records: list[dict[str, Any]], trained: list[dict[str, Any]]) -> str:
    """Text of the difference in one part of provenance; empty without one."""
    here, there = (sorted({_ORIGIN[part](record) for record in several}) for several in (records, trained))
    if not here or here == there:
        return ""
    return f"{part} {' and '.join(here)} (the cells': {' and '.join(there)})"


def _used(rows: dict[tuple[str, str], list[EpisodeRow]], protocol: str) -> set[str]:
    return {row.provenance for (name, _), several in rows.items() if name == protocol for row in several}


def _label(baselines: Iterable[Baselines], name: str) -> str:
    return name + ELSEWHERE if any(name in each.differs for each in baselines) else name


def with_baselines(table: pd.DataFrame, baselines: Baselines, metrics: dict[str, str]) -> pd.DataFrame:
    """A table with a row per variant and training seed, and the three baseline rows below.

    Args:
        table: the table of trained cells.
        baselines: the baselines of the same protocol.
        metrics: column → the metric that it shows. Other columns get a dash.
    """
    rows = []
    for name in (*NAMES, IDEAL):
        row: dict[str, Any] = dict.fromkeys(table.columns, NO_VALUE) | {"variant": _label([baselines], name)}
        if "n" in row and name in baselines.rows:
            row["n"] = rates_of(baselines.rows[name])["measured"]
        rows.append(row | {column: baseline_entry(baselines, name, metric) for column, metric in metrics.items()})
    return _below(table, rows)


def by_seed(table: pd.DataFrame, baselines: Baselines, metric: str) -> pd.DataFrame:
    """A table with a row per variant and a column per training seed; baselines have the column `UNTRAINED`."""
    empty = dict.fromkeys(table.columns, "")
    rows = [
        empty | {"variant": _label([baselines], name), UNTRAINED: baseline_entry(baselines, name, metric, counts=True)}
        for name in (*NAMES, IDEAL)
    ]
    return _below(table.assign(**{UNTRAINED: ""}), rows)


def over_sets(table: pd.DataFrame, sets: dict[str, tuple[str, ...]], baselines: dict[str, Baselines]) -> pd.DataFrame:
    """A table of means over sets of protocols, with the means of the baselines that were run below."""
    rows = []
    for set_name in table["set"].drop_duplicates():
        of_set = [baselines.get(protocol, Baselines()) for protocol in sets[set_name]]
        for name in NAMES:
            row = {"set": set_name, "variant": _label(of_set, name), "none": _mean(of_set, name)}
            rows.append(dict.fromkeys(table.columns, NO_VALUE) | row)
    return _below(table, rows)


def _mean(of_set: list[Baselines], name: str) -> str:
    lines = [rates_of(each.rows[name]) for each in of_set if name in each.rows]
    if len(lines) < len(of_set):
        reasons = {each.absent.get(name, "not run") for each in of_set if name not in each.rows}
        return next((reason for reason in ("no expert", NO_VALUE) if reason in reasons), "not run")
    errors = sum(line["errors"] for line in lines)
    suffix = f" (+{errors} errors)" if errors else ""
    if not all(line["measured"] for line in lines):
        return NO_VALUE + suffix
    return f"{sum(line['success_rate'] for line in lines) / len(lines):.2f} over {len(lines)}{suffix}"


def _below(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.concat([table.astype(object), pd.DataFrame(rows, columns=table.columns, dtype=object)], ignore_index=True)


def baseline_frame(baselines: dict[str, Baselines]) -> pd.DataFrame:
    """A line per protocol and baseline that was run, with counts, rates and limits as in the tidy frame."""
    return pd.DataFrame(
        [
            {"policy": name, "protocol": protocol} | rates_of(rows)
            for protocol, each in baselines.items()
            for name, rows in each.rows.items()
        ]
    )


def sentence(baselines: Baselines) -> str:
    """The paragraph that explains the baseline rows and the origin of those that were run."""
    records = baselines.provenance.values()
    parts = []
    if codes := ", ".join(sorted({record["code"] for record in records})):
        parts.append(f"code version {codes}")
    parts += [f"simulator {name}" for name in sorted({r["simulator"] for r in records if r["simulator"]})]
    if any((record.get("environment") or {}).get("pictures") for record in records):
        parts.append("taken without pictures")
    text = (
        "Result tables end with three baseline rows of the same episodes: a random policy, the scripted expert and the "
        "best memoryless policy. `random` draws every action anew, uniform in [-1, 1]; `expert` reads the simulator's "
        "state. Both act at every step, also where policies run chunks open loop, and no intervention acts on them. "
        f"`{IDEAL}` is an expectation, not a run; {NO_VALUE} stands where the expectation is not known."
    )
    if parts:
        text += f" Origin of the baseline rows: {'; '.join(parts)}."
    if baselines.differs:
        named = "; ".join(f"`{name}` {difference}" for name, difference in baselines.differs.items())
        text += f" †: the origin differs from that of the cells' rows: {named}."
    return text
