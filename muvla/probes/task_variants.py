"""Protocols that a probe derives from another: the same seeds, episodes and slots, but for what the probe changes."""

from __future__ import annotations

from typing import Any

from muvla.config.serialization import replace
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol


def derived(base: Protocol, what: str, version: int, changes: dict[str, Any]) -> Protocol:
    """`recall-position3-rh+phase10@1` with dotted fields changed; a base of another version than its first has that in
    the name. `version` is the probe's. What changes nothing is the base itself, whose rows are shared."""
    changed = replace(base, changes)
    if changed == base:
        return base
    of = base.name if base.version == 1 else f"{base.name}-v{base.version}"
    return replace(changed, {"name": f"{of}+{what}", "version": version})


def require_settable(base: Protocol, *names: str) -> None:
    """Raises MuvlaError, before any episode runs, if the protocol's task has no place for a field of TaskConfig."""
    settable = task_info(base.task.name).settable
    for name in names:
        if name not in settable:
            raise MuvlaError(
                f"probe of {base.id}: task.{name}",
                got=base.task.name,
                expected=f"a task where task.{name} can be set",
                remedy=f"of {base.task.name} can be set: {', '.join(settable) or 'nothing'}",
            )
