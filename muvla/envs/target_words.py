"""An instruction that names the target: the upper bound of every memory that carries the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muvla.errors import MuvlaError


def add_target(facts: Mapping[str, Any]) -> str:
    """Return the instruction of an episode with the numbers of its targets, counted from 1.

    For example "Touch the marked disc. Target 2.", or "... Target 2 4." where several objects are to be chosen.

    Args:
        facts: `StepInfo` of an episode, or its line in a store.

    Raises:
        MuvlaError: nothing is cued in the episode, or its target is unknown.
    """
    targets = facts.get("targets") or (facts.get("target"),)
    if None in targets:
        raise MuvlaError(
            "data.instruction",
            got=f"with_target, for an episode without a known target: {facts['instruction']!r}",
            expected="episodes that record their target",
            remedy="set data.instruction to task, or choose a task in which something is cued",
        )
    return f"{facts['instruction'].strip()} Target {' '.join(str(target + 1) for target in targets)}."
