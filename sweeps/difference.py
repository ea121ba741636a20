"""The certificate between two variants of a study, in print: what differs, what follows from it, and what is shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muvla.config import Cell, canonical
from muvla.config.serialization import difference
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError
from sweeps.study import Study, difference_of, train_id

UNKNOWN = "The data are not collected yet: their content, the statistics and the train ids follow from them."


def difference_text(study: Study, stores: dict[str, EpisodeStore] | None, variants: tuple[str, str]) -> str:
    """Of every training seed alike, as a variant is the same overrides under each. Without the data, their content is
    not known. Raises MuvlaError for an unknown variant."""
    cells = {item.variant: item.cell for item in reversed(study.cells())}  # of the first seed
    for variant in variants:
        if variant not in study.variants:
            raise MuvlaError(
                "--between",
                got=variant,
                expected=f"one of {', '.join(map(repr, study.variants))}",
                remedy="correct the name",
            )
    a, b = (cells[variant] for variant in variants)
    computed, declared = difference_of(a, b), difference(a, b)
    effective = {name: values for name, values in computed.items() if name in declared}
    follows = {name: values for name, values in computed.items() if name not in declared}
    other = {name: values for name, values in declared.items() if name not in computed}
    facts = dict(_facts(a, b, *((stores[variant] for variant in variants) if stores else (None, None))))
    lines = [
        f"{variants[0]!r} | {variants[1]!r} of {study.name}, training seeds {', '.join(map(str, study.seeds))} alike"
    ]
    lines += _block("Declared:", effective)
    lines += _block(f"Declared, with no effect{' but what follows' * bool(follows)}:", other)
    lines += _block("Follows:", follows)
    lines += ["Nothing else differs." if computed else "They are one computation: no field that it uses differs."]
    lines += _block("Shared:", {name: one for name, (one, other) in facts.items() if one == other})
    lines += _block("Not shared:", {name: pair for name, pair in facts.items() if pair[0] != pair[1]})
    return "\n".join(lines if stores else [*lines, UNKNOWN])


def difference_lines(study: Study) -> list[str]:
    """A line for each variant but the first: the exact difference of its computation from that of the first."""
    cells = {item.variant: item.cell for item in reversed(study.cells())}
    first, *others = study.variants
    return [
        f"`{variant}` against `{first}`: "
        + "; ".join(f"{k} {b} against {a}" for k, (a, b) in difference_of(cells[first], cells[variant]).items())
        for variant in others
    ]


def _block(title: str, fields: dict[str, Any]) -> list[str]:
    """A line for each field, with its value, or both of a pair."""
    told = {name: " | ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in fields.items()}
    return [title, *(f"  {name}: {value}" for name, value in told.items())] if fields else []


def _facts(a: Cell, b: Cell, *stores: EpisodeStore | None) -> Iterator[tuple[str, tuple[str, str]]]:
    """(what, (of the one, of the other)), in words."""
    cells = (canonical(a), canonical(b))
    if None not in stores:
        pairs = list(zip(cells, stores, strict=True))
        yield "data content", tuple(store.sha256[:12] for _, store in pairs)
        yield "statistics", tuple(Statistics.of(store, cell.data.statistics).id for cell, store in pairs)
        yield f"train id, seed {a.seed}", tuple(train_id(cell, store) for cell, store in pairs)
    yield "slots B, and what they play in an order that is drawn", tuple(_played(cell) for cell in cells)
    yield "updates U", tuple(str(cell.budget.updates) for cell in cells)
    yield "frames F·U", tuple(f"{cell.budget.total_frames:,}" for cell in cells)


def _played(cell: Cell) -> str:
    """All that a slot's frames are drawn by, beside the training seed and the data."""
    data = cell.data
    group = f" of {data.group}" * (data.order == "grouped")
    balance = f", {len(data.datasets)} datasets balanced by {data.balance}" * bool(data.mixture)
    return f"{cell.budget.slots}, {data.order}{group}{balance}"
