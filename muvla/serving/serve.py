"""A run behind a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import muvla
from muvla.data.readers.formats import published_conventions
from muvla.envs.conventions import Conventions, common_conventions
from muvla.envs.registry import task_info
from muvla.models.compilation import compile_step
from muvla.runs.released import ReleasedRun
from muvla.runs.run import Run
from muvla.serving.gate import Gate
from muvla.serving.gripper import answered_conventions
from muvla.serving.regime import Regime
from muvla.serving.sessions import Limits, Sessions
from muvla.serving.slots import PolicySlots


def open_slots(
    run: Run, device: str, count: int, names: tuple[str, ...] = (), batch: int | None = None, compiled: bool = False
) -> PolicySlots:
    """The policy of a run behind slots.

    Args:
        run: the run; its statistics scale state and actions.
        device: torch device of the policy.
        count: slots.
        names: names of the cameras in the training's order; empty takes images in the order in which they are sent.
        batch: rows of a forward pass; None for `count`.
        compiled: compile the step with torch.compile.
    """
    policy = run.load_policy(device)
    if compiled:
        compile_step(policy)
    return PolicySlots(policy, run.trained_on().statistics, count, _facts(run), names, batch)


def _facts(run: Run) -> dict[str, Any]:
    if isinstance(run, ReleasedRun):
        return {"train": run.train, "statistics_key": run.key}
    tasks = sorted({dataset.task.name for dataset in run.cell.data.datasets})
    return {"train": run.train, "tasks": tasks}


def trained_conventions(run: Run) -> Conventions:
    """The conventions of the actions that a run was trained on: of its datasets, and of their tasks.

    A release names no dataset but by the key of its statistics.
    """
    if isinstance(run, ReleasedRun):
        return published_conventions(run.key)
    parts = run.store().parts
    return common_conventions([task_info(p.spec.task.name).conventions.replaced_by(p.conventions) for p in parts])


def build_gate(
    slots: PolicySlots, regime: Regime, limits: Limits, conventions: Conventions, gripper: str | None, **access: Any
) -> Gate:
    """The gate of a server.

    Args:
        slots: the policy.
        regime: how chunks become actions.
        limits: of the sessions.
        conventions: of the actions that the policy was trained on.
        gripper: form of the last number of an answer; None for the checkpoint's.
        access: further fields of `Gate`.
    """
    regime = replace(regime, gripper=slots.choose_gripper(gripper, conventions))
    config = {"server": "muvla", "version": muvla.__version__} | slots.config() | {"regime": regime.plain()}
    config["conventions"] = answered_conventions(regime.gripper, conventions).shown
    return Gate(Sessions(slots, regime, limits), config, **access)
