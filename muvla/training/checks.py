"""Run-time checks of a training: every update counts, stays finite, and moves the memory as its mechanism declares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from muvla.config import Cell
from muvla.data.span import require_span_of_data
from muvla.data.store import EpisodeStore
from muvla.envs.phases import events
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.interventions.base import Intervention
from muvla.recurrence import Recurrence


def require_trainable(cell: Cell, intervention: Intervention | None, store: EpisodeStore) -> None:
    """Refuses memories and interventions that a training cannot apply.

    Raises:
        MuvlaError: the intervention is not the cell's; the memory looks further back than an episode of the data can
            be long; the intervention takes memories of donor episodes, which change while the policy trains; or the
            intervention waits for a phase event that the demonstrations do not record.
    """
    name = intervention.name if intervention else None
    if name != cell.intervention:
        raise MuvlaError(
            "intervention",
            got=name,
            expected=f"{cell.intervention!r}, which the cell declares",
            remedy="pass parse_intervention(cell.intervention)",
        )
    require_span_of_data(cell.memory, cell.data)
    if intervention is None:
        return
    if intervention.donor is not None:
        raise MuvlaError(
            "intervention",
            got=intervention.name,
            expected="an intervention without donors, in training",
            remedy="intervene on the trained cell: `muvla intervene`",
        )
    event = intervention.schedule and intervention.schedule.event
    if event and any(event not in events(line) for line in store.index):
        raise MuvlaError(
            "intervention",
            got=f"{intervention.name}, with demonstrations that do not record their {event}",
            expected="a schedule of steps, or demonstrations with phases",
            remedy="choose a schedule of steps, for example @4",
        )


def check_ticks(
    is_first: torch.Tensor, calls: int, writes_before: Sequence[int], writes: Sequence[int], update: int
) -> None:
    """Compares model calls and memory writes of a window with its ticks.

    Args:
        is_first: (W, B) bool, ticks at which a slot's episode starts.
        calls: model calls in this window.
        writes_before: writes of each slot's episode before the window.
        writes: the same after the window; one more per tick, counted anew from an episode's first tick.
        update: number of the update, from 1.

    Raises:
        NotAMeasurement: a count differs.
    """
    expected = list(writes_before)
    for first_row in is_first.tolist():
        expected = [1 if first else n + 1 for n, first in zip(expected, first_row, strict=True)]
    if calls != len(is_first) or list(writes) != expected:
        raise NotAMeasurement(
            f"memory at update {update}",
            got=f"{calls} model calls, writes {list(writes)}",
            expected=f"{len(is_first)} calls, writes {expected}",
            remedy="report this as a bug",
        )


def check_finite(recurrence: Recurrence, loss: float, norm: float, update: int) -> None:
    """Raises NotAMeasurement if the update's loss, its gradient norm or the carried memory is not finite.

    Args:
        recurrence: holds the carried memory.
        loss: the update's loss.
        norm: the update's gradient norm.
        update: number of the update, from 1.
    """
    leaves = recurrence.state.values()
    if math.isfinite(loss) and math.isfinite(norm) and all(bool(leaf.isfinite().all()) for leaf in leaves):
        return
    raise NotAMeasurement(
        f"training at update {update}",
        got=f"loss {loss}, gradient norm {norm}, memory RMS {memory_rms(leaves)}",
        expected="finite numbers",
        remedy="lower optimizer.lr or set optimizer.clip; the cell is marked and has no result",
    )


def check_moved(recurrence: Recurrence, mechanism: str, update: int) -> None:
    """Raises NotAMeasurement if a recurrent memory still equals its initial state, or another memory does not.

    A memory that settles may wait for its frame.
    """
    state, memory = recurrence.state, recurrence.memory
    initial = memory.init_state(recurrence.slots)
    moved = any(bool((state[name] != initial[name]).any()) for name in state)
    if memory.settles and not moved:
        return
    if recurrence.intervention is None and moved != memory.recurs:
        raise NotAMeasurement(
            f"memory at update {update}",
            got="moved" if moved else "frozen",
            expected=f"a memory that {'moves' if memory.recurs else 'stays as it is'} under mechanism {mechanism!r}",
            remedy="lower optimizer.lr and optimizer.weight_decay, which may have set all parameters to zero; if this "
            "error stays, the mechanism has a bug",
        )


def memory_rms(leaves: Iterable[torch.Tensor], mean=lambda value: value) -> float:
    """Returns the largest root mean square of the memory's leaves; 0 without any.

    Args:
        leaves: tensors of the carried state.
        mean: averages a number over ranks; the identity for one process.
    """
    return max(
        (mean(x.detach().square().mean()).sqrt().item() for x in leaves if x.is_floating_point() and x.numel()),
        default=0.0,
    )
