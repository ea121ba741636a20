"""Checks before an episode runs: do policy, robot, task and intervention fit together?"""

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
from muvla.memory.base import Memory, float_leaves
from muvla.models.policy import Policy


def require_applicable(
    intervention: Intervention | None, policy: Policy, env: WorkerEnv | LocalEnv, protocol: Protocol
) -> None:
    """Raise MuvlaError, before an episode runs, for an intervention that cannot act on this policy in this task.

    Args:
        intervention: may be None, which always fits.
        policy: whose memory it acts on.
        env: opened for the protocol; its step limit counts where the protocol has none.
        protocol: of the episodes.
    """
    if intervention is None:
        return
    require_tokens(intervention, policy)
    if intervention.bank is not None:
        intervention.bank.require_spec(policy.memory.state_spec())
    limit = protocol.step_limit or get_attribute(env, "step_limit", None) or math.inf
    schedule = intervention.schedule
    step = schedule.first({}) if schedule and schedule.event is None else 0
    has_bank = intervention.donor is None or intervention.bank is not None
    _require(
        intervention,
        (f"a first step {step}", step < limit, f"one before the step limit of {protocol.id}, {limit}"),
        ("no donors", has_bank, "a bank of donors (`muvla.evaluation.donor_recording.with_donors`)"),
    )


def require_tokens(intervention: Intervention, policy: Policy) -> None:
    """Raises MuvlaError for an intervention that this policy's memory has no room for."""
    require_defined(intervention, policy.memory)


def require_defined(intervention: Intervention, memory: Memory) -> None:
    """Raises MuvlaError for an intervention that is undefined for this mechanism, or that it has no room for."""
    units = memory.units
    if intervention.site == "read":
        name, count, uncounted = "tokens", memory.tokens, set()
    else:
        name, count, uncounted = units.name, units.count, set(memory.state_spec()) - set(units.leaves)
    undefined = memory.undefined_interventions.get(intervention.kind_name)
    _require(
        intervention,
        ("a policy without memory", memory.has_state, "a memory to intervene on"),
        (f"a memory of {count} {name}", intervention.least_units <= count, f"at least {intervention.least_units}"),
        (
            f"a memory that holds {', '.join(sorted(uncounted))} for all {name} together",
            not (intervention.whole_state and intervention.tokens and uncounted),
            "no [first:stop]: a whole state is moved",
        ),
        (
            f"a memory whose state ({', '.join(memory.state_spec())}) holds no floating-point number",
            intervention.whole_state or intervention.site == "read" or bool(float_leaves(memory.init_state(1))),
            "an intervention that puts a whole state, or the site `read`",
        ),
        (
            f"the mechanism {memory.config.kind}",
            bool(units.times) or not intervention.on_times,
            "a mechanism whose entries have times, such as bank",
        ),
        (
            f"the mechanism {memory.config.kind} without perceptual tokens",
            memory.config.perceives or not intervention.on_perception,
            "memory.kind bank in the place condition, with a perceptual stream",
        ),
        (f"the mechanism {memory.config.kind}", undefined is None, f"another intervention: {undefined}"),
    )


def _require(intervention: Intervention, *demands: tuple[str, bool, str]) -> None:
    """Raise MuvlaError for the first demand (got, whether it fits, expected) that does not fit."""
    for got, fits, expected in demands:
        if not fits:
            raise MuvlaError(
                f"intervention {intervention.name}",
                got=got,
                expected=expected,
                remedy="change the intervention's tokens or schedule, or leave the intervention out",
            )


def require_event(intervention: Intervention | None, info: Mapping[str, Any], task: str) -> None:
    """Raise MuvlaError if the schedule waits for an event that this episode of the task lacks."""
    if intervention is None or intervention.schedule is None or intervention.schedule.event is None:
        return
    episode_events = events(info)
    if intervention.schedule.event not in episode_events:
        raise MuvlaError(
            f"intervention {intervention.name}",
            got=f"@{intervention.schedule.text}",
            expected=f"an event of {task}: {', '.join(episode_events) or 'it has none, but steps'}",
            remedy="choose another schedule",
        )


def require_fit(policy: Policy, env: WorkerEnv | LocalEnv) -> None:
    """Raise MuvlaError if the environment's robot is not the robot that the policy was trained for."""
    space, actions = get_attribute(env, "observation_space"), get_attribute(env, "action_space")
    require_robot(policy, (space["images"].shape[0], space["proprio"].shape[0], actions.shape[0]))


def require_robot(policy: Policy, got: tuple[int, int, int]) -> None:
    """Raise MuvlaError if a robot is not the robot that the policy was trained for.

    `got` is the robot's number of cameras, of proprio numbers and of action numbers.
    """
    interface = policy.interface
    proprio = interface.proprio_dim if policy.proprio else got[1]
    cameras = interface.robot_cameras or interface.cameras - interface.first_image
    expected = (cameras, proprio, interface.action_dim)
    if got != expected:
        raise MuvlaError(
            "protocol.task",
            got="a task with {} cameras, {} proprio numbers, {} action numbers".format(*got),
            expected="{}, {} and {}, as in the training data".format(*expected),
            remedy="evaluate on a task of the suite that the cell was trained on",
        )


def get_attribute(env: WorkerEnv | LocalEnv, name: str, *default: Any) -> Any:
    """Return a constant of the environment.

    A process that is lost at its start, or fails there, is started once more. Raises MuvlaError if it fails again.
    """
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
    """Return type, text and place of an error, for an error row."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
