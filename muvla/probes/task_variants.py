"""Protocols derived from another protocol: the same seeds, episodes and slots, with the changes of a probe."""

from __future__ import annotations

from typing import Any

from muvla.config.serialization import replace
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol


def derive_protocol(base: Protocol, what: str, version: int, changes: dict[str, Any]) -> Protocol:
    """Return the base protocol with changes, for example `recall-position3-rh+phase10@1`.

    A change of nothing returns the base itself, whose rows are shared. A base of a later version than its first has
    the version in the new name.

    Args:
        base: the protocol to start from.
        what: what changes, for the new name.
        version: of the probe.
        changes: dotted field → value.
    """
    changed = replace(base, changes)
    if changed == base:
        return base
    of = base.name if base.version == 1 else f"{base.name}-v{base.version}"
    return replace(changed, {"name": f"{of}+{what}", "version": version})


def require_settable(base: Protocol, *names: str) -> None:
    """Raise MuvlaError, before any episode runs, if the protocol's task cannot set a field of TaskConfig."""
    settable = task_info(base.task.name).settable
    for name in names:
        if name not in settable:
            raise MuvlaError(
                f"probe of {base.id}: task.{name}",
                got=base.task.name,
                expected=f"a task where task.{name} can be set",
                remedy=f"choose another task; {base.task.name} can set {', '.join(settable) or 'nothing'}",
            )
