"""The exact difference of two cells, and of two variants of a study in print: what differs, what follows, what is
shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muvla.config import Cell, canonical
from muvla.config.serialization import difference as declared_difference
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.errors import unknown_name
from sweeps.cells import train_id
from sweeps.study import Study

UNKNOWN = "The data are not collected yet: data content, statistics and train ids are not known."


def difference(a: Cell, b: Cell) -> dict[str, tuple[Any, Any]]:
    """The exact difference of two cells: dotted field → (value in a, value in b).

    A field that a computation does not use is left out, so cells that are one computation have no difference.
    """
    return declared_difference(canonical(a), canonical(b))


def difference_text(study: Study, stores: dict[str, EpisodeStore] | None, variants: tuple[str, str]) -> str:
    """The difference of two variants, the same under every training seed. Raises MuvlaError for an unknown variant.

    Args:
        study: the study.
        stores: variant → its data; None where they are not collected yet.
        variants: the two names.
    """
    cells = {item.variant: item.cell for item in reversed(study.cells())}  # of the first seed
    for variant in variants:
        if variant not in study.variants:
            raise unknown_name("VARIANT", variant, study.variants)
    a, b = (cells[variant] for variant in variants)
    computed, declared = difference(a, b), declared_difference(a, b)
    effective = {name: values for name, values in computed.items() if name in declared}
    follows = {name: values for name, values in computed.items() if name not in declared}
    without_effect = {name: values for name, values in declared.items() if name not in computed}
    facts = dict(_facts(a, b, *((stores[variant] for variant in variants) if stores else (None, None))))
    seeds = ", ".join(map(str, study.seeds))
    lines = [f"{variants[0]!r} | {variants[1]!r} of {study.name}, the same for training seeds {seeds}"]
    lines += _block("Declared:", effective)
    title = "Declared, with no effect but what follows:" if follows else "Declared, with no effect:"
    lines += _block(title, without_effect)
    lines += _block("Follows:", follows)
    lines.append("Nothing else differs." if computed else "The variants are one computation: no used field differs.")
    lines += _block("Shared:", {name: first for name, (first, second) in facts.items() if first == second})
    lines += _block("Not shared:", {name: pair for name, pair in facts.items() if pair[0] != pair[1]})
    return "\n".join(lines if stores else [*lines, UNKNOWN])


def difference_lines(study: Study) -> list[str]:
    """A line for each variant but the first: the exact difference of its computation from the first variant's."""
    cells = {item.variant: item.cell for item in reversed(study.cells())}
    first, *others = study.variants
    return [
        f"`{variant}` against `{first}`: "
        + "; ".join(f"{k} {b} against {a}" for k, (a, b) in difference(cells[first], cells[variant]).items())
        for variant in others
    ]


def _block(title: str, fields: dict[str, Any]) -> list[str]:
    """The title, and a line for each field with its value or its pair of values; empty without fields."""
    if not fields:
        return []
    shown = {name: " | ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in fields.items()}
    return [title, *(f"  {name}: {value}" for name, value in shown.items())]


def _facts(a: Cell, b: Cell, *stores: EpisodeStore | None) -> Iterator[tuple[str, tuple[str, str]]]:
    """(fact, (its value in a, its value in b)), in words."""
    cells = (canonical(a), canonical(b))
    if None not in stores:
        pairs = list(zip(cells, stores, strict=True))
        yield "data content", tuple(store.sha256[:12] for _, store in pairs)
        yield "statistics", tuple(Statistics.from_store(store, cell.data.statistics).id for cell, store in pairs)
        yield f"train id, seed {a.seed}", tuple(train_id(cell, store) for cell, store in pairs)
    yield "slots B, and the order of their episodes", tuple(_order(cell) for cell in cells)
    yield "updates U", tuple(str(cell.budget.updates) for cell in cells)
    yield "frames F·U", tuple(f"{cell.budget.total_frames:,}" for cell in cells)


def _order(cell: Cell) -> str:
    """Everything that decides which frames a slot plays, beside the training seed and the data."""
    data = cell.data
    text = f"{cell.budget.slots}, {data.order}"
    if data.order == "grouped":
        text += f" of {data.group}" + (", padded" if data.group_padding == "repeat" else "")
    if data.mixture:
        text += f", {len(data.datasets)} datasets balanced by {data.balance}"
    return text
