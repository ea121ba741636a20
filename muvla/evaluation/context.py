"""How an evaluation runs: provenance, stops, environments, what is shared. None of it changes a row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium

from muvla.config import TaskConfig
from muvla.envs.registry import open_env, task_info
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.protocol import Protocol
from muvla.utils.devices import usable_cores


def no_record(environment: dict[str, Any]) -> AbstractContextManager[str]:
    """Record no provenance."""
    return nullcontext("")


@dataclass(frozen=True)
class EvaluationContext:
    """Everything about an evaluation but what is evaluated.

    `record` is called with the environments' account of themselves. Its context holds while episodes run, and gives
    the provenance id of their rows.
    """

    record: Callable[[dict[str, Any]], AbstractContextManager[str]] = no_record
    check_stop: Callable[[], None] = lambda: None  # called after every row; it may raise to end the evaluation
    workers: int | None = None  # environments side by side; None for `default_workers`
    env_factory: Callable[[TaskConfig, int | None], gymnasium.Env] = open_env  # of a task and an image size
    cache: PrefixCache = field(default_factory=PrefixCache)  # shared by the evaluations of one policy

    def make_env(self, protocol: Protocol) -> Callable[[], gymnasium.Env]:
        """Return a function that opens an environment of the protocol."""
        return partial(self.env_factory, protocol.task, protocol.image_size)

    def environments(self, protocol: Protocol) -> int:
        """Return how many environments of the protocol step side by side."""
        return self.workers or default_workers(protocol)


def default_workers(protocol: Protocol, evaluations: int = 1) -> int:
    """Return how many environments step side by side where `evaluations` evaluations run at once.

    There are as many as the protocol has slots. Simulators with a process of their own get one core each in all.
    """
    if not task_info(protocol.task.name).own_process:
        return protocol.slots
    return max(1, usable_cores() // evaluations)
