"""A run behind a server."""

from __future__ import annotations

from typing import Any

import muvla
from muvla.config import Cell
from muvla.envs.conventions import NOTHING_STATED
from muvla.envs.registry import task_info
from muvla.models.compilation import compile_step
from muvla.runs.released import ReleasedRun
from muvla.runs.run import Run
from muvla.serving.gate import Gate
from muvla.serving.regime import Regime
from muvla.serving.sessions import Limits, Sessions
from muvla.serving.slots import PolicySlots


def open_slots(run: Run, device: str, count: int, names: tuple[str, ...] = (), compiled: bool = False) -> PolicySlots:
    """The policy of a run behind slots.

    Args:
        run: the run; its statistics scale state and actions.
        device: torch device of the policy.
        count: slots.
        names: names of the cameras in the training's order; empty takes images in the order in which they are sent.
        compiled: compile the step with torch.compile.
    """
    policy = run.load_policy(device)
    if compiled:
        compile_step(policy)
    return PolicySlots(policy, run.trained_on().statistics, count, _facts(run), names)


def _facts(run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"train": run.train, "conventions": NOTHING_STATED.shown}
    if isinstance(run, ReleasedRun):
        return facts
    cell: Cell = run.cell
    tasks = sorted({dataset.task.name for dataset in cell.data.datasets})
    stated = [task_info(name).conventions for name in tasks]
    if all(conventions == stated[0] for conventions in stated):
        facts["conventions"] = stated[0].shown
    return facts | {"tasks": tasks}


def build_gate(slots: PolicySlots, regime: Regime, limits: Limits, **access: Any) -> Gate:
    """The gate of a server.

    Args:
        slots: the policy.
        regime: how chunks become actions.
        limits: of the sessions.
        access: further fields of `Gate`.
    """
    config = {"server": "muvla", "version": muvla.__version__} | slots.config() | {"regime": regime.plain()}
    return Gate(Sessions(slots, regime, limits), config, **access)
