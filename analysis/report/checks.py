"""The parts of provenance that must be alike among the cells of one report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from muvla.evaluation.records import CellRecords
from muvla.utils.code_version import comparable

Record = dict[str, Any]
ALL = "all cells"  # the scope of what must be alike everywhere


@dataclass(frozen=True)
class Check:
    """One part of provenance that must be alike.

    Attributes:
        name: plural that a refusal prints, "devices"; `{scope}` stands for the scope.
        values: yields (scope, value) of all cells; several values in one scope are a mix.
        separator: stands between the values in the refusal.
    """

    name: str
    values: Callable[[list[CellRecords]], Iterator[tuple[str, str]]]
    separator: str = ", "

    def mixes(self, cells: list[CellRecords]) -> list[str]:
        """A text per scope with several values, for example "devices (H200, cpu)"."""
        values: dict[str, set[str]] = defaultdict(set)
        for scope, value in self.values(cells):
            values[scope].add(value)
        return [
            f"{self.name.format(scope=scope)} ({self.separator.join(sorted(several))})"
            for scope, several in values.items()
            if len(several) > 1
        ]


def mixed(cells: list[CellRecords]) -> list[str]:
    """A text for every part of provenance in which the cells differ."""
    return [text for check in CHECKS for text in check.mixes(cells)]


def _records(cells: list[CellRecords]) -> Iterator[Record]:
    return (record for cell in cells for record in cell.provenance.values())


def _key(key: str) -> Callable[[list[CellRecords]], Iterator[tuple[str, str]]]:
    """The values of one key in all records; a record without the key says False."""
    return lambda cells: ((ALL, str(record.get(key, False))) for record in _records(cells))


def _code(cells: list[CellRecords]) -> Iterator[tuple[str, str]]:
    """The code version of the core; versions that compute the same numbers count as one."""
    return ((ALL, comparable(record["code"])) for record in _records(cells))


def _members(cells: list[CellRecords]) -> Iterator[tuple[str, str]]:
    """(mechanism, suite, intervention or probe, its code version); a record without members was written earlier."""
    return ((name, version) for record in _records(cells) for name, version in record.get("members", {}).items())


def _of_training(key: str) -> Callable[[list[CellRecords]], Iterator[tuple[str, str]]]:
    """A setting of training alone: a cell has it if one of its records has it."""
    return lambda cells: ((ALL, str(any(record.get(key) for record in cell.provenance.values()))) for cell in cells)


def _ranks(cells: list[CellRecords]) -> Iterator[tuple[str, str]]:
    """The number of ranks that trained a cell; the records of its evaluations have none."""
    for cell in cells:
        if cell.provenance:
            yield ALL, max(str(record.get("ranks", "1")) for record in cell.provenance.values())


def _packages(cells: list[CellRecords]) -> Iterator[tuple[str, str]]:
    """The versions of every installed package.

    A package that was not installed was not used: a simulator may be added between two sweeps of a study.
    """
    pairs = {(name, v) for record in _records(cells) for name, v in record["packages"].items() if v}
    return iter(sorted(pairs))


def simulators(cells: list[CellRecords]) -> Iterator[tuple[str, str]]:
    """(protocol or a variant's data, simulator and renderer).

    Only within one protocol, or within one variant's demonstrations, is a difference a mix: every task has assets of
    its own. A measurement's record names no renderer, so only a simulator that its protocol's rows do not have counts.
    """
    backends: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        used = _provenance_by_scope(cell)
        for scope, ids in used.items():
            for record in (cell.provenance[id] for id in ids):
                backends[scope].add(record["simulator"])
                drawn = sorted(set((record.get("environment") or {}).get("renderers", ())))
                if record["simulator"]:
                    yield scope, ", ".join([record["simulator"], *(f"drawn by {name}" for name in drawn)])
    for cell in cells:
        for taken in cell.measurements:
            simulator = cell.provenance[taken.provenance]["simulator"]
            if simulator and simulator not in backends[taken.protocol]:
                yield taken.protocol, simulator


def _provenance_by_scope(cell: CellRecords) -> dict[str, set[str]]:
    """Protocol → provenance ids of its measured rows, and one entry for the ids of the cell's data and training."""
    points = [(point.protocol, point.rows) for grid in cell.grids for point in grid.points]
    results = [*((protocol, rows) for (protocol, _), rows in cell.rows.items()), *points]
    used: dict[str, set[str]] = defaultdict(set)
    for protocol, rows in results:
        used[protocol] |= {row.provenance for row in rows if row.error is None}
    evaluated = {row.provenance for _, rows in results for row in rows}
    evaluated |= {taken.provenance for taken in cell.measurements}
    used[f"the data of {cell.variant}"] = cell.provenance.keys() - evaluated
    return used


CHECKS = (
    Check("code versions", _code),
    Check("versions of {scope}", _members),
    Check("devices", _key("device")),
    Check("thread counts", _key("threads")),
    Check("settings of --compile", _key("compiled")),
    Check("settings of --cache-vision", _of_training("cached_vision")),
    Check("settings of --one-pass", _of_training("one_pass")),
    Check("numbers of ranks", _ranks),
    Check("simulator backends of {scope}", simulators, "; "),
    Check("versions of {scope}", _packages),
)
