"""The certificate between two arms of a study, in print: what differs, what follows from it, and what is shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muvla.config import Cell, canonical
from muvla.configtools import difference
from muvla.data.episodes import EpisodeStore
from muvla.data.statistics import Statistics
from muvla.errors import MuvlaError
from sweeps.grid import Study, certificate, train_id

UNKNOWN = "unknown until the data are collected"
Fields = dict[str, tuple[Any, Any]]


def between_text(study: Study, stores: dict[str, EpisodeStore] | None, arms: tuple[str, str]) -> str:
    """Of every training seed alike, as an arm is the same overrides under each. Without the data, their content is not
    known. Raises MuvlaError for an unknown arm."""
    cells = {item.arm: item.cell for item in reversed(study.cells())}  # of the first seed
    for arm in arms:
        if arm not in cells:
            raise MuvlaError("--between", got=arm, expected=f"one of {', '.join(cells)}", remedy="correct the name")
    a, b = (cells[arm] for arm in arms)
    computed, declared = certificate(a, b), difference(a, b)
    shared = dict(_facts(a, b, *((stores[arm] for arm in arms) if stores else (None, None))))
    same = {name: (one, other) for name, (one, other) in shared.items() if one == other}
    lines = [f"{arms[0]!r} | {arms[1]!r} of {study.name}, training seeds {', '.join(map(str, study.seeds))} alike"]
    for title, fields in (
        ("Declared:", {name: values for name, values in computed.items() if name in declared}),
        ("Follows from it:", {name: values for name, values in computed.items() if name not in declared}),
        ("Declared, but used by neither computation:", {k: v for k, v in declared.items() if k not in computed}),
    ):
        lines += [title, *(f"  {name}: {one!r} | {other!r}" for name, (one, other) in fields.items())] if fields else []
    lines += ["Nothing else differs." if computed else "They are one computation: no field that it uses differs."]
    for title, fields in (("Shared:", same), ("Not shared:", {k: v for k, v in shared.items() if k not in same})):
        values = {name: one if name in same else f"{one} | {other}" for name, (one, other) in fields.items()}
        lines += [title, *(f"  {name}: {value}" for name, value in values.items())] if fields else []
    return "\n".join(lines)


def _facts(a: Cell, b: Cell, *stores: EpisodeStore | None) -> Iterator[tuple[str, tuple[str, str]]]:
    """(what, (of the one, of the other)), in words."""
    cells = (canonical(a), canonical(b))
    pairs = list(zip(cells, stores, strict=True))
    known = None not in stores
    yield "data", tuple(f"content {store.sha256[:12]}" if known else UNKNOWN for _, store in pairs)
    yield "statistics", tuple(Statistics.of(s, cell.data.statistics).id if known else UNKNOWN for cell, s in pairs)
    yield "slots B and what they play, in this order", tuple(_played(cell) for cell in cells)
    yield "updates U", tuple(str(cell.budget.updates) for cell in cells)
    yield "frames F·U", tuple(f"{cell.budget.total_frames:,}" for cell in cells)
    yield f"train id, seed {a.seed}", tuple(train_id(cell, store) if known else UNKNOWN for cell, store in pairs)


def _played(cell: Cell) -> str:
    """All that a slot's frames are drawn by, beside the training seed and the data."""
    data = cell.data
    group = f" of {data.group}" * (data.order == "grouped")
    balance = f", {len(data.datasets)} datasets balanced by {data.balance}" * bool(data.mixture)
    return f"{cell.budget.slots}, {data.order}{group}{balance}"
