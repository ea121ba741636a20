"""The modules of the registered members that a computation uses, for its provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from muvla.envs.registry import find_suite
from muvla.interventions.base import Intervention
from muvla.models.policy import Policy


def modules_in_use(
    policy: Policy | None = None,
    tasks: Iterable[str] = (),
    intervention: Intervention | None = None,
    probe: Callable | None = None,
) -> set[str]:
    """The modules that define the members in use.

    Args:
        policy: its memory is a mechanism.
        tasks: names of the tasks of data and protocols; each belongs to a suite.
        intervention: on the memory, if any.
        probe: the function of a measurement, if any.
    """
    modules = {type(find_suite(task)[0]).__module__ for task in tasks}
    if policy is not None:
        modules.add(_defined_in(type(policy.memory)))
    if intervention is not None:
        modules.add(intervention.function.__module__)
    if probe is not None:
        modules.add(probe.__module__)
    return modules


def _defined_in(mechanism: type) -> str:
    """The module of a mechanism. Sharding by torch wraps the class in a class of torch's."""
    return next(base.__module__ for base in mechanism.__mro__ if not base.__module__.startswith("torch."))
