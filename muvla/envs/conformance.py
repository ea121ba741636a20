"""Checks that a suite keeps the contract of `muvla.envs.base`. Run them in the tests of your suite.

check_suite(MySuite())  # without a simulator
check_episode(MySuite(), TaskConfig("MyTask"), seed=0)  # plays it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from muvla.config import TaskConfig
from muvla.envs.base import NO_CHOICE, StepInfo, Suite, TaskInfo
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError

_LENGTHS = ("cue_length", "delay_length", "blank_length")
# Longer phases with which the step limit must grow.
_LONGER = {"cue": (40, 60), "delay": (40, 60), "blank": (0, 60)}


def check_suite(suite: Suite) -> None:
    """Check the facts about every task, and the protocols. Makes no environment; raises MuvlaError."""
    tasks = suite.tasks()
    _require(suite, "name", suite.name, suite.name.isidentifier(), "an identifier")
    _require(suite, "tasks", tasks, 0 < len(tasks) == len(set(tasks)), "at least one task, each once")
    for task in tasks:
        _require(suite, "tasks", task, not set(task) & set(":/"), "names without : and /")
        _check_task(suite, task, suite.info(task))
    ids = [spec.id for spec in suite.protocols()]
    _require(suite, "protocols", ids, len(ids) == len(set(ids)), "each id once")
    for spec in suite.protocols():
        _require(suite, f"protocol {spec.id}", spec.task.name, spec.task.name in tasks, "a task of the suite")
    for name, several in suite.protocol_sets().items():
        _require(suite, f"protocol set {name}", several, len(several) > 0 and set(several) <= set(ids), "its protocols")
        _require(suite, f"protocol set {name}", name, name not in ids, "another name than any protocol's id")


def check_episode(suite: Suite, task: TaskConfig, seed: int = 0) -> None:
    """Play an episode twice with the same seed: observations, `info`, and that both episodes are equal.

    The expert acts where there is one, else random actions. Raises MuvlaError.
    """
    info = suite.info(task.name)
    env = suite.make_env(task)
    try:
        first = _play(suite, task, env, info, seed)
        if info.expert and not first[-1]["success"]:
            raise _broken(suite, f"expert of {task.name}", f"no success with seed {seed}", "a success")
        _require_equal(suite, task, first, _play(suite, task, env, info, seed))
    finally:
        env.close()


def check_info(info: Mapping[str, Any], actions: int, expert: bool = False) -> None:
    """Check the dict `info` of a reset or a step against `StepInfo`; it may have further entries.

    Raises MuvlaError, whose field names the entry.

    Args:
        info: the dict.
        actions: A, the numbers of an action.
        expert: the task has an expert.
    """
    for name in StepInfo.__required_keys__:
        _require_info(name, "nothing", name in info, "an entry")
    text, target, choice = info["instruction"], info["target"], info["choice"]
    _require_info("instruction", text, isinstance(text, str) and text.strip() != "", "a sentence")
    _require_info("phase", info["phase"], isinstance(info["phase"], Phase), "a Phase")
    _require_info("phase", info["phase"], info["phase"] not in (Phase.UNKNOWN, Phase.NO_OP), "a phase that is known")
    _require_info("target", target, target is None or _is_whole(target), "a number from 0 on, or None")
    _require_info("choice", choice, choice == NO_CHOICE or _is_whole(choice), f"a number from 0 on, or {NO_CHOICE}")
    _require_info("success", info["success"], isinstance(info["success"], bool | np.bool_), "a bool")
    _check_several(info)
    for name in ("cued", "update_step"):
        _require_info(name, info.get(name, 0), _is_whole(info.get(name, 0)), "a number from 0 on")
    for name in _LENGTHS:
        _require_info(name, info.get(name, 0), _is_whole(info.get(name, 0)), "a number of steps from 0 on")
    _check_action("executed_action", info["executed_action"], actions)
    if expert:
        _check_action("expert_action", info.get("expert_action"), actions)


def _check_several(info: Mapping[str, Any]) -> None:
    """Check the entries of a task in which several objects must be chosen: all three of them, or none."""
    names = [name for name in ("targets", "choices", "right") if name in info]
    _require_info("choices", names, len(names) in (0, 3), "targets, choices and right, or none of them")
    if not names:
        return
    targets, choices, right = info["targets"], info["choices"], info["right"]
    for name, numbers in (("targets", targets), ("choices", choices)):
        whole = isinstance(numbers, tuple) and all(map(_is_whole, numbers))
        _require_info(name, numbers, whole, "a tuple of numbers from 0 on")
    _require_info("targets", targets, targets[:1] == (info["target"],), "the target first")
    first = choices[0] if choices else NO_CHOICE
    _require_info("choices", choices, first == info["choice"], "the choice first")
    _require_info("right", right, _is_whole(right) and right <= len(choices), "a number of the choices")


def _check_task(suite: Suite, task: str, info: TaskInfo) -> None:
    def require(name: str, fits: bool, expected: str) -> None:
        _require(suite, f"{task}: {name}", getattr(info, name), fits, expected)

    require("suite", info.suite == suite.name, f"{suite.name}, the suite's name")
    require("instruction", info.instruction.strip() != "", "a sentence")
    require("instructions", info.instruction in info.instructions, "sentences, `instruction` among them")
    require("camera", info.camera >= 1, "pixels")
    require("chance", info.chance is None or 0 < info.chance <= 1, "in (0, 1], or None")
    require("choices", info.choices is None or info.choices >= 1, "a number of objects, or None")
    settable = {field.name for field in fields(TaskConfig)} - {"name"}
    require("settable", set(info.settable) <= settable, f"fields of TaskConfig: {', '.join(sorted(settable))}")
    require("colours", bool(info.colours) == ("palette" in info.settable), "colours where the palette is settable")
    limit = suite.step_limit(TaskConfig(task))
    phases = info.cue[1] + info.delay[1]
    _require(suite, f"{task}: step_limit", limit, limit > phases, f"more than the {phases} steps of its longest phases")
    for name in sorted({*_LONGER} & {*info.settable}):
        longer = suite.step_limit(replace(TaskConfig(task), **{name: _LONGER[name]}))
        longest = phases + _LONGER[name][1] - (getattr(info, name)[1] if name != "blank" else 0)
        _require(suite, f"{task}: step_limit with a longer {name}", longer, longer > longest, f"more than {longest}")


def _play(suite: Suite, task: TaskConfig, env: gymnasium.Env, info: TaskInfo, seed: int) -> list[Any]:
    """Observations and infos of one episode, alternating; the last entry is the last info."""
    actions = env.action_space.shape[0]
    rng = np.random.default_rng(seed)
    observation, now = env.reset(seed=seed)
    trace, over, steps = [], False, 0
    limit = task.step_limit or suite.step_limit(task)
    while True:
        _check_observation(suite, task, env, observation)
        check_info(now, actions, info.expert)
        _require(
            suite, f"{task.name}: instruction", now["instruction"], now["instruction"] in info.instructions, "known"
        )
        for name in ("target", "choice"):
            choices = task.objects or info.choices
            fits = now[name] is None or choices is None or now[name] < choices
            _require(suite, f"{task.name}: {name}", now[name], fits, f"less than {choices}, the task's choices")
        trace += [observation, now]
        if over:
            return trace
        action = now["expert_action"] if info.expert else rng.uniform(-1, 1, actions).astype(np.float32)
        observation, _, terminated, truncated, now = env.step(action)
        steps += 1
        over = terminated or truncated or now["success"]
        _require(suite, f"{task.name}: step_limit", steps, steps < limit or over, f"an end after {limit} steps")


def _check_observation(suite: Suite, task: TaskConfig, env: gymnasium.Env, observation: Mapping[str, Any]) -> None:
    expected = {"images": np.uint8, "proprio": np.float32}
    names = set(observation)
    _require(suite, f"{task.name}: observation", sorted(names), names == set(expected), "images and proprio")
    space = env.observation_space
    for name, dtype in expected.items():
        array = observation[name]
        shape = space[name].shape if isinstance(space, spaces.Dict) else None
        fits = array.dtype == dtype and array.shape == shape
        got = f"{array.dtype} {array.shape}"
        _require(suite, f"{task.name}: {name}", got, fits, f"{np.dtype(dtype)} {shape}, as in observation_space")
    side = suite.info(task.name).camera
    height, width = observation["images"].shape[1:3]
    _require(suite, f"{task.name}: images", (height, width), height == width == side, f"square, {side} pixels (camera)")


def _check_action(name: str, action: Any, actions: int) -> None:
    fits = isinstance(action, np.ndarray) and action.shape == (actions,) and np.isfinite(action).all()
    _require_info(name, action, fits, f"an array of {actions} finite numbers")
    _require_info(name, action.dtype, action.dtype == np.float32, "float32")


def _require_equal(suite: Suite, task: TaskConfig, first: list[Any], second: list[Any]) -> None:
    equal = len(first) == len(second)
    for one_step, other_step in zip(first, second, strict=False):
        equal &= one_step.keys() == other_step.keys()
        equal &= all(np.array_equal(one_step[name], other_step[name]) for name in one_step)
    _require(suite, f"{task.name}: reset", "two different episodes", equal, "one episode per seed")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0


def _require(suite: Suite, what: str, got: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise _broken(suite, what, got, expected)


def _require_info(name: str, got: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise _broken_info(name, got, expected)


def _broken(suite: Suite, what: str, got: Any, expected: str) -> MuvlaError:
    return MuvlaError(
        f"suite {suite.name}: {what}",
        got=got,
        expected=expected,
        remedy="see muvla.envs.base.Suite, and change the suite",
    )


def _broken_info(name: str, got: Any, expected: str) -> MuvlaError:
    return MuvlaError(
        f"info.{name}", got=got, expected=expected, remedy="see muvla.envs.base.StepInfo, and change the environment"
    )
