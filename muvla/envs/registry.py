"""Suites by name, tasks to suites, and a TaskConfig to an environment.

A suite comes from one of three places:

- `SUITES` below, for suites of this repository;
- an entry point of the group `muvla.suites` in another installed package (`muvla.utils.registry` has the rules);
- an import path inside the task's name, `module:Suite:Task`, for a suite in a file beside a study.

No suite is imported before a task or a protocol asks for it, and no suite imports its simulator before an environment
is made.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import gymnasium

from muvla.config import TaskConfig
from muvla.envs.assets import AssetSet
from muvla.envs.base import Bounds, Suite, TaskInfo
from muvla.envs.workers import WorkerEnv
from muvla.errors import MuvlaError, unknown_name
from muvla.utils.registry import Registry

SUITES = Registry(
    "muvla.suites",
    {
        "recall": "muvla.envs.recall.suite:RecallSuite",
        "mikasa": "muvla.envs.mikasa.suite:MikasaSuite",
        "maniskill": "muvla.envs.maniskill.suite:ManiSkillSuite",
        "bridge": "muvla.envs.maniskill.suite:BridgeSuite",
        "libero": "muvla.envs.libero.suite:LiberoSuite",
    },
    "suite",
)


def get_suite(name: str) -> Suite:
    """The suite of this name, or of an import path `module:Suite`. Raises MuvlaError for an unknown name."""
    if ":" in name:
        return _load(name)
    places = SUITES.places()
    if name not in places:
        raise unknown_name("suite", name, places)
    suite = _load(places[name])
    if suite.name != name:
        raise MuvlaError(
            "suite",
            got=f"{name} = {places[name]}, whose name is {suite.name}",
            expected="an entry point with the suite's name",
            remedy=f"name the entry point {suite.name} in the package that declares it",
        )
    return suite


def suites() -> Iterator[Suite]:
    """Every registered suite: those of this repository first, then those of installed packages."""
    for _, suite in SUITES.each(get_suite):
        yield suite


def find_suite(task: str) -> tuple[Suite, str]:
    """The suite of a task, and the task's name within the suite. Raises MuvlaError for an unknown task."""
    if ":" in task:
        path, _, name = task.rpartition(":")
        suite = _load(path)
        if name not in suite.tasks():
            raise unknown_name("task.name", task, [f"{path}:{candidate}" for candidate in suite.tasks()])
        return suite, name
    for suite in suites():
        if task in suite.tasks():
            return suite, task
    raise unknown_name("task.name", task, [name for suite in suites() for name in suite.tasks()], "muvla ls tasks")


def task_info(task: str) -> TaskInfo:
    """Facts about a task that are known before an environment exists. Raises MuvlaError for an unknown task."""
    suite, name = find_suite(task)
    return suite.info(name)


def step_limit(task: TaskConfig) -> int:
    """Most steps of an episode: `task.step_limit`, or by the suite's rule, which grows with the longest phases."""
    suite, name = find_suite(task.name)
    return suite.step_limit(replace(task, name=name)) if task.step_limit is None else task.step_limit


def bounds(task: TaskConfig) -> Bounds:
    """Scores that no policy without memory exceeds (`Suite.bounds`). Raises MuvlaError for an unknown task."""
    suite, name = find_suite(task.name)
    return suite.bounds(replace(task, name=name))


def longest_phases(task: TaskConfig) -> int:
    """Steps of the longest blank, cue and delay that an episode may have. Raises MuvlaError for an unknown task."""
    info = task_info(task.name)
    return sum(longest for _, longest in (task.blank or (0, 0), task.cue or info.cue, task.delay or info.delay))


def backends(task: TaskConfig) -> str | None:
    """Physics, renderer and assets of a task on this machine; None without a simulator (`Suite.backends`)."""
    suite, name = find_suite(task.name)
    return suite.backends(replace(task, name=name))


def make_env(task: TaskConfig, image_size: int | None = None) -> gymnasium.Env:
    """A new environment in this process.

    Frames have `image_size` pixels a side; None keeps the camera's size. Raises MuvlaError for an unknown task, and for
    a field that the task cannot change.
    """
    suite, task = _resolve(task)
    return suite.make_env(task, image_size)


def make_blind_env(task: TaskConfig) -> gymnasium.Env:
    """`make_env` for policies that look at no image (`Suite.make_blind_env`)."""
    suite, task = _resolve(task)
    return suite.make_blind_env(task)


def open_env(task: TaskConfig, image_size: int | None = None) -> gymnasium.Env:
    """`make_env`, in a process of its own where `TaskInfo.own_process` says so."""
    if task_info(task.name).own_process:
        return WorkerEnv(partial(make_env, task, image_size))
    return make_env(task, image_size)


def open_blind_env(task: TaskConfig) -> gymnasium.Env:
    """`make_blind_env`, in a process of its own where `TaskInfo.own_process` says so."""
    if task_info(task.name).own_process:
        return WorkerEnv(partial(make_blind_env, task))
    return make_blind_env(task)


def asset_sets() -> dict[str, AssetSet]:
    """The assets of all suites by name."""
    return {assets.name: assets for suite in suites() for assets in suite.assets}


def get_asset_set(name: str) -> AssetSet:
    """Raises MuvlaError for an unknown name."""
    sets = asset_sets()
    if name not in sets:
        raise unknown_name("NAME", name, sets, "muvla assets list")
    return sets[name]


def _resolve(task: TaskConfig) -> tuple[Suite, TaskConfig]:
    suite, name = find_suite(task.name)
    settable = suite.info(name).settable
    for field in fields(TaskConfig):
        value = getattr(task, field.name)
        if field.name != "name" and value is not None and field.name not in settable:
            raise MuvlaError(
                f"task.{field.name}",
                got=value,
                expected=f"null for {task.name}, which can change: {', '.join(settable) or 'nothing'}",
                remedy=f"leave task.{field.name} out, or choose a task that can change it",
            )
    return suite, replace(task, name=name)


@cache
def _load(path: str) -> Suite:
    """One instance of the class at an import path `module:Suite`."""
    module_name, _, class_name = path.partition(":")
    try:
        made = getattr(_import(module_name), class_name)
    except Exception as error:  # a stranger's module may raise anything
        if isinstance(error, MuvlaError):
            raise
        raise MuvlaError(
            "suite",
            got=f"{path} ({type(error).__name__}: {error})",
            expected="module:Suite, importable from the study's folder or the working directory",
            remedy="install the package, or run the command in the folder that contains the module",
        ) from error
    if not (isinstance(made, type) and issubclass(made, Suite)):
        raise MuvlaError(
            "suite", got=path, expected="a subclass of muvla.envs.base.Suite", remedy="see docs/extending/suite.md"
        )
    return made()


def _import(module: str) -> ModuleType:
    """The module. The working directory is searched last: the program `muvla` does not have it on its path."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here = str(Path.cwd())
        if error.name != module.split(".")[0] or here in sys.path:
            raise
        sys.path.append(here)
        return importlib.import_module(module)
