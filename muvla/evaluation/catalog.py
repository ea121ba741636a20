"""The protocols and sets of protocols that suites declare, by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache

from muvla.envs.base import ProtocolSpec, Suite
from muvla.envs.registry import get_suite, suites
from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.protocol import Protocol


@cache
def declared_protocols() -> dict[str, Protocol]:
    """Every protocol of a registered suite, by id.

    Raises MuvlaError where two suites declare different protocols of one id.
    """
    declared: dict[str, Protocol] = {}
    for suite in suites():
        for protocol in _protocols_of(suite):
            if declared.setdefault(protocol.id, protocol) != protocol:
                raise _declared_twice(suite, protocol.id)
    return declared


@cache
def declared_sets() -> dict[str, tuple[Protocol, ...]]:
    """Every set of protocols by id. The success rate of a set is the unweighted mean over its protocols."""
    declared: dict[str, tuple[Protocol, ...]] = {}
    for suite in suites():
        for name, protocols in _sets_of(suite).items():
            if declared.setdefault(name, protocols) != protocols:
                raise _declared_twice(suite, name)
    return declared


def get_protocol(id: str) -> Protocol:
    """The protocol of this id.

    A suite that is no registered one is named by its import path: `module:Suite:protocol@1`. Raises MuvlaError, with
    the nearest match, for an unknown id.
    """
    if ":" in id:
        path, name = id.rpartition(":")[::2]
        by_id = {protocol.id: protocol for protocol in _protocols_of(get_suite(path), path)}
    else:
        name, by_id = id, declared_protocols()
    if name not in by_id:
        raise unknown_name("protocol", id, by_id, "muvla ls protocols")
    return by_id[name]


def get_protocols(id: str) -> tuple[Protocol, ...]:
    """The protocols of a set, or the single protocol of this id (`get_protocol`)."""
    if ":" in id:
        path, name = id.rpartition(":")[::2]
        sets = _sets_of(get_suite(path), path)
        by_id = {protocol.id: (protocol,) for protocol in _protocols_of(get_suite(path), path)}
    else:
        name, sets = id, declared_sets()
        by_id = {id: (protocol,) for id, protocol in declared_protocols().items()}
    by_id |= sets
    if name not in by_id:
        raise unknown_name("protocol", id, by_id, "muvla ls protocols")
    return by_id[name]


def _protocols_of(suite: Suite, path: str | None = None) -> Iterator[Protocol]:
    for spec in suite.protocols():
        yield _make_protocol(suite, spec, path)


def _sets_of(suite: Suite, path: str | None = None) -> dict[str, tuple[Protocol, ...]]:
    protocols = {protocol.id: protocol for protocol in _protocols_of(suite, path)}
    sets = {}
    for name, ids in suite.protocol_sets().items():
        if missing := [id for id in ids if id not in protocols]:
            raise unknown_name(f"suite {suite.name}: protocol set {name}", missing[0], protocols)
        sets[name] = tuple(protocols[id] for id in ids)
    return sets


def _make_protocol(suite: Suite, spec: ProtocolSpec, path: str | None) -> Protocol:
    """The protocol of a declaration; tasks of a suite that is found by its import path carry the path."""
    allowed = {field.name for field in fields(Protocol)} - {"name", "version", "task", "episodes", "update"}
    for name in spec.settings:
        if name not in allowed:
            raise unknown_name(f"suite {suite.name}: protocol {spec.id}", name, allowed)
    task = spec.task if path is None else replace(spec.task, name=f"{path}:{spec.task.name}")
    return Protocol(spec.name, spec.version, task, spec.episodes, **spec.settings)


def _declared_twice(suite: Suite, id: str) -> MuvlaError:
    return MuvlaError(
        f"suite {suite.name}: protocol",
        got=f"{id}, which another suite declares differently",
        expected="an id that no other suite has",
        remedy="rename the suite's protocol",
    )
