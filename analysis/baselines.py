"""The lines of a table that no training has made: what the trained variants lie between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.frames import rates_of
from analysis.tables import NO_VALUE, entry
from muvla.evaluation.records import Baselines, CellRecords, EpisodeRow

IDEAL = "memoryless ideal"
UNTRAINED = "untrained"  # the column of a table that has one for each training seed
NAMES = ("random", "expert")
OTHER = " †"  # after the name of a line whose rows do not come from where the cells' do


def reading(baselines: Baselines, name: str, of: str, counts: bool = False) -> str:
    """The entry of a line under one reading: a rate, an expectation, or why there is none."""
    if name == IDEAL:
        known = baselines.ideal.get(of)
        return NO_VALUE if known is None else f"{known:.2f} (expected)"
    if name not in baselines.rows:
        return baselines.absent.get(name, "not run")
    line = pd.Series(rates_of(baselines.rows[name]), dtype=object)  # else its counts would be floats
    return entry(line, of, counts)


def compared(baselines: Baselines, cells: list[CellRecords], protocol: str) -> Baselines:
    """The same, which tells where rows come from other code, another simulator or with other stand-ins than all cells'
    rows of this protocol do."""
    own = [one.provenance[id] for one in cells for id in _used(one.rows, protocol) if id in one.provenance]
    differs = {}
    for name, rows in baselines.rows.items():
        records = [baselines.provenance[id] for id in {row.provenance for row in rows} if id in baselines.provenance]
        found = [
            f"{what} {' and '.join(here)} (the cells': {' and '.join(there) or 'none'})"
            for what, of in _ORIGIN.items()
            if own
            and (here := sorted({of(one) for one in records})) != (there := sorted({of(one) for one in own}))
            and here
        ]
        if found:
            differs[name] = ", ".join(found)
    return replace(baselines, differs=differs)


def _used(rows: dict[tuple[str, str], list[EpisodeRow]], protocol: str) -> set[str]:
    return {row.provenance for (name, _), several in rows.items() if name == protocol for row in several}


# What a line should share with the cells it stands below, of a provenance record.
_ORIGIN: dict[str, Callable[[dict[str, Any]], str]] = {
    "code version": lambda record: record["code"],
    "simulator": lambda record: str(record["simulator"] or "none"),
    "stand-ins": lambda record: ", ".join((record.get("environment") or {}).get("stand_in_assets", ())) or "none",
}


def _label(baselines: Iterable[Baselines], name: str) -> str:
    return name + OTHER * any(name in one.differs for one in baselines)


def with_readings(table: pd.DataFrame, baselines: Baselines, readings: dict[str, str]) -> pd.DataFrame:
    """A table with a row per variant and training seed, and below them a row per baseline. `readings` maps a column to
    the reading that it shows; any other column of rates says that there is none."""
    rows = []
    for name in (*NAMES, IDEAL):
        row: dict[str, Any] = dict.fromkeys(table.columns, NO_VALUE) | {"variant": _label([baselines], name)}
        if "n" in row and name in baselines.rows:
            row["n"] = rates_of(baselines.rows[name])["measured"]
        rows.append(row | {column: reading(baselines, name, of) for column, of in readings.items()})
    return _below(table, rows)


def by_seed(table: pd.DataFrame, baselines: Baselines, of: str) -> pd.DataFrame:
    """A table with a row per variant and a column per training seed; the baselines have none, and so their own
    column."""
    empty = dict.fromkeys(table.columns, "")
    rows = [
        empty | {"variant": _label([baselines], name), UNTRAINED: reading(baselines, name, of, counts=True)}
        for name in (*NAMES, IDEAL)
    ]
    return _below(table.assign(**{UNTRAINED: ""}), rows)


def over_sets(table: pd.DataFrame, sets: dict[str, tuple[str, ...]], baselines: dict[str, Baselines]) -> pd.DataFrame:
    """A table with a row per set of protocols, variant and training seed: the means of what was not trained over a
    set."""
    rows = []
    for one in table["set"].drop_duplicates():
        of_set = [baselines.get(protocol, Baselines()) for protocol in sets[one]]
        for name in NAMES:
            told = {"set": one, "variant": _label(of_set, name), "none": _mean(of_set, name)}
            rows.append(dict.fromkeys(table.columns, NO_VALUE) | told)
    return _below(table, rows)


def _mean(of_set: list[Baselines], name: str) -> str:
    lines = [rates_of(one.rows[name]) for one in of_set if name in one.rows]
    if len(lines) < len(of_set):
        why = {one.absent.get(name, "not run") for one in of_set if name not in one.rows}
        return next((never for never in ("no expert", NO_VALUE) if never in why), "not run")
    errors = sum(line["errors"] for line in lines)
    told = f" (+{errors} errors)" * bool(errors)
    if not all(line["measured"] for line in lines):
        return NO_VALUE + told
    return f"{sum(line['success_rate'] for line in lines) / len(lines):.2f} over {len(lines)}{told}"


def _below(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.concat([table.astype(object), pd.DataFrame(rows, columns=table.columns, dtype=object)], ignore_index=True)


def frame(baselines: dict[str, Baselines]) -> pd.DataFrame:
    """A line per protocol and policy that was run, with counts, rates and bounds as in the tidy frame."""
    return pd.DataFrame(
        [
            {"policy": name, "protocol": protocol} | rates_of(rows)
            for protocol, one in baselines.items()
            for name, rows in one.rows.items()
        ]
    )


def sentence(baselines: Baselines) -> str:
    """What the lines are, and what the rows of those that were run tell of where they come from."""
    of = baselines.provenance
    codes = ", ".join(sorted({record["code"] for record in of.values()}))
    simulators = sorted({record["simulator"] for record in of.values() if record["simulator"]})
    other = "; ".join(f"`{name}` {why}" for name, why in baselines.differs.items())
    blind = any((record.get("environment") or {}).get("pictures") for record in of.values())
    told = [f"code version {codes}"] * bool(codes) + [f"simulator {one}" for one in simulators]
    told += ["taken without pictures"] * blind
    return (
        "Untrained lines, of the same episodes: `random` draws every action anew, uniform in [-1, 1]; `expert` is the "
        "scripted one, which reads the simulator's state; both act at every step, also where policies run chunks open "
        f"loop, and nothing intervenes on them. `{IDEAL}` is an expectation, no run; {NO_VALUE} where it is not known."
        + f" Rows of these: {'; '.join(told)}." * bool(told)
        + f" †: not from where the cells' rows come: {other}." * bool(other)
    )
