"""What must fit together before an episode runs: policy, robot, task and intervention."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from typing import Any

from muvla.envs.phases import events
from muvla.envs.workers import LocalEnv, WorkerEnv, WorkerError
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.interventions.base import Intervention
from muvla.models.policy import Policy


def require_sense(kind: Intervention | None, policy: Policy, env: WorkerEnv | LocalEnv, protocol: Protocol) -> None:
    """Raises MuvlaError, before an episode runs, for an intervention that cannot act on this policy in this task."""
    if kind is None:
        return
    require_tokens(kind, policy)
    limit = protocol.step_limit or get_attribute(env, "step_limit", None) or math.inf
    step = kind.schedule.first({}) if kind.schedule and kind.schedule.event is None else 0
    _require(
        kind,
        (f"a first step {step}", step < limit, f"one before the step limit of {protocol.id}, {limit}"),
        ("no donors", kind.donor is None or kind.bank is not None, "a bank of donors (`muvla.interventions.donors`)"),
    )


def require_tokens(kind: Intervention, policy: Policy) -> None:
    """The same of its tokens alone, for which no environment is asked."""
    width = policy.memory.width
    last = max(kind.tokens[1] - 1 if kind.tokens else 0, kind.argument if kind.name.startswith("lesion") else 0)
    permutes = kind.name.startswith("permute_tokens") and not kind.argument  # with one, it is the identity
    _require(
        kind,
        ("a policy without memory", width > 0, "a memory to intervene on"),
        (f"token {last}", last < width, f"one of the {width} tokens 0…{width - 1}"),
        ("a memory of one token", not permutes or width > 1, "two at least: one has no other order"),
    )


def _require(kind: Intervention, *demands: tuple[str, bool, str]) -> None:
    """(what was got, whether it fits, what is expected)."""
    for got, fits, expected in demands:
        if not fits:
            raise MuvlaError(
                f"intervention {kind.name}", got=got, expected=expected, remedy="correct it, or leave it out"
            )


def require_event(kind: Intervention | None, info: Mapping[str, Any], task: str) -> None:
    """Raises MuvlaError if the schedule waits for an event that this episode of the task lacks."""
    if kind is not None and kind.schedule is not None and kind.schedule.event is not None:
        own = events(info)
        if kind.schedule.event not in own:
            raise MuvlaError(
                f"intervention {kind.name}",
                got=f"@{kind.schedule.text}",
                expected=f"an event of {task}: {', '.join(own) or 'it has none, but steps'}",
                remedy="choose another schedule",
            )


def require_fit(policy: Policy, env: WorkerEnv | LocalEnv) -> None:
    """Raises MuvlaError if the robot of the environment is not the one that the policy was trained for."""
    space, actions = get_attribute(env, "observation_space"), get_attribute(env, "action_space")
    require_robot(policy, (space["images"].shape[0], space["proprio"].shape[0], actions.shape[0]))


def require_robot(policy: Policy, got: tuple[int, int, int]) -> None:
    """Raises MuvlaError if a robot with so many cameras, proprio numbers and action numbers is not the one that the
    policy was trained for."""
    own = policy.interface
    proprio = own.proprio_dim if policy.proprio else got[1]
    expected = (own.robot_cameras or own.cameras - own.first_image, proprio, own.action_dim)
    if got != expected:
        raise MuvlaError(
            "protocol.task",
            got="a task with {} cameras, {} proprio numbers, {} action numbers".format(*got),
            expected="{}, {} and {}, as in the training data".format(*expected),
            remedy="evaluate on a task of the suite that the cell was trained on",
        )


def get_attribute(env: WorkerEnv | LocalEnv, name: str, *default: Any) -> Any:
    """A constant of the environment. A process that is lost at its start, or fails there, is started once more; raises
    MuvlaError if that does not help."""
    try:
        return env.attribute(name, *default)
    except WorkerError as first:
        env.retire()
        try:
            return env.attribute(name, *default)
        except WorkerError as error:
            raise MuvlaError(
                "simulator",
                got=f"{error}; at first: {first}",
                expected="an environment that starts",
                remedy="run `muvla doctor --sim`",
            ) from error


def describe(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
