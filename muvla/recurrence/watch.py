"""Comparison of a memory from tick to tick: moved or frozen.

Legend: m MEMORY tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muvla.interventions.base import Intervention
from muvla.memory.base import float_leaves
from muvla.memory.contract import Read, State, Units
from muvla.recurrence.tick import Recurrence


def watched(recurrence: Recurrence, slot: int) -> State:
    """The MEMORY tokens (m, D) that the slot's last tick read, as `tokens`, where these are the units of the state.

    For any other mechanism: the leaves of the state (the float leaves where the state has any), and as `content` the
    MEMORY tokens or the retrieved content.
    """
    memory, state = recurrence.memory, recurrence.read_state
    if memory.tokens and memory.units.name == "tokens":
        return {"tokens": _present_tokens(recurrence.read, slot)}
    content = float_leaves(state) or state
    leaves = {name: leaf[slot] for name, leaf in content.items() if name not in memory.units.times}
    if memory.tokens:
        leaves["content"] = _present_tokens(recurrence.read, slot)
    elif recurrence.retrieved is not None:
        content, skipped = recurrence.retrieved.content[slot], recurrence.retrieved.skipped
        leaves["content"] = content if skipped is None else content * ~skipped[slot]
    return leaves


def _present_tokens(read: Read, slot: int) -> Tensor:
    """(m, D) with zeros for a token that is not in the sequence."""
    return read.tokens[slot] if read.present is None else read.tokens[slot] * read.present[slot, :, None]


def all_finite(state: State) -> bool:
    return all(bool(torch.isfinite(leaf).all()) for leaf in state.values())


def moved(before: State, after: State, intervention: Intervention | None, units: Units) -> bool:
    """True where two ticks of a slot read different things, at the units that the intervention acts on.

    Content depends on the observation too: it counts at the site `read` alone, where the intervention puts it.

    Args:
        before: what one tick read, see `watched`.
        after: what a later tick read.
        intervention: acts on all units, or on `[a:b]`.
        units: of the mechanism.
    """
    chosen = None if intervention is None else intervention.tokens
    at_read = intervention is not None and intervention.site == "read"
    names = [name for name in after if name == "tokens" or (name == "content") == (at_read and "content" in after)]
    if chosen is not None:
        counted = ("tokens",) if "tokens" in after else ("content",) if at_read else units.leaves
        names = [name for name in names if name in counted]
    if chosen is None:
        return any(not torch.equal(before[name], after[name]) for name in names)
    rows = slice(*chosen)
    return any(not torch.equal(before[name][rows], after[name][rows]) for name in names)
