"""Memories that look back by a number of steps, and tasks that must have as many."""

from __future__ import annotations

from muvla.config import DataConfig, MemoryConfig, TaskConfig
from muvla.envs.registry import step_limit


def require_span(memory: MemoryConfig, task: TaskConfig, where: str, limit: int | None = None) -> None:
    """Raises MuvlaError where no episode is as long as the memory looks back.

    Args:
        memory: the mechanism's configuration.
        task: whose rule gives the step limit.
        where: whose step limit this is, for the error.
        limit: a step limit in place of the task's.
    """
    if memory.span[0]:  # else the limit of a foreign task need not be known
        memory.require_step_limit(step_limit(task) if limit is None else limit, where)


def require_span_of_data(memory: MemoryConfig, data: DataConfig) -> None:
    """The same for every task of the demonstrations."""
    for dataset in data.datasets:
        require_span(memory, dataset.task, dataset.task.name)
