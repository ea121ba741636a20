"""The guard: which query rows may attend to which key columns.

| query rows \\ keys     | BOS VISION PROPRIO MEMORY TEXT | ACTION STOP TIME               | PAD |
|------------------------|--------------------------------|--------------------------------|-----|
| rows barred by a guard | yes                            | no                             | no  |
| all other rows         | yes                            | yes                            | no  |

`full` bars no row, `memory_only` bars MEMORY, `context` bars BOS, VISION, PROPRIO, MEMORY and TEXT (the published
custom mask, spec 3.1). Attention is never causal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muvla.errors import unknown_name
from muvla.models.sequence import Segment

CONTEXT = (Segment.BOS, Segment.VISION, Segment.PROPRIO, Segment.MEMORY, Segment.TEXT)
BARRED_ROWS: dict[str, tuple[Segment, ...]] = {"full": (), "memory_only": (Segment.MEMORY,), "context": CONTEXT}
GUARDED_KEYS = (Segment.ACTION, Segment.STOP, Segment.TIME)


def may_attend(query: Tensor, key: Tensor, guard: str) -> Tensor:
    """Broadcasts segment ids of queries and keys to bool, True where the query may attend.

    This function is the guard's only definition; every backend derives its work from it.
    """
    if guard not in BARRED_ROWS:
        raise unknown_name("model.guard", guard, BARRED_ROWS)
    barred = _is_any(query, BARRED_ROWS[guard]) & _is_any(key, GUARDED_KEYS)
    return ~barred & (key != int(Segment.PAD))


def _is_any(segment: Tensor, members: tuple[Segment, ...]) -> Tensor:
    result = torch.zeros_like(segment, dtype=torch.bool)
    for member in members:
        # int(): in code compiled by torch no tensor equals a member of an enumeration, so the guard would bar no row.
        result = result | (segment == int(member))
    return result
