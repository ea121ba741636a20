"""Several studies in one report, checked as one study: what they may not differ in, and what cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from muvla.config import canonical
from muvla.config.serialization import flatten
from muvla.errors import MuvlaError
from sweeps.checks import undeclared_differences
from sweeps.study import SEED, Study


def union_differences(studies: Sequence[Study]) -> list[str]:
    """A text for everything in which the studies are not one study.

    Two studies may differ in the factors that one of them declares, and in training seeds. An id of a protocol means
    one protocol in all of them.
    """
    allowed = {SEED, *(factor for study in studies for factor in study.factors)}
    texts = []
    for first, other in combinations(studies, 2):
        undeclared = undeclared_differences(first.base, other.base, allowed)
        texts += [
            f"{name}: {a!r} in {first.name}, {b!r} in {other.name}, which no factor declares"
            for name, (a, b) in undeclared.items()
        ]
        of_first = {protocol.id: protocol.hash for protocol in first.every_protocol}
        texts += [
            f"protocol {protocol.id}: content {of_first[protocol.id]} in {first.name}, {protocol.hash} in {other.name}"
            for protocol in other.every_protocol
            if of_first.get(protocol.id, protocol.hash) != protocol.hash
        ]
    return list(dict.fromkeys(texts))


def require_one_study(studies: Sequence[Study]) -> None:
    """Raises MuvlaError for studies that differ in what no factor declares, or in a protocol of one id."""
    if texts := union_differences(studies):
        raise MuvlaError(
            "STUDY",
            got=f"studies that differ: {'; '.join(texts)}",
            expected="studies that are one study together",
            remedy="report the studies apart, declare the field as a factor, or accept the differences with "
            "--mix-studies, which the report then states",
        )


def inseparable_lines(studies: Sequence[Study]) -> list[str]:
    """A sentence for every two declared factors that always change together between the variants.

    The fields of a mechanism follow from `memory.kind`, and are not named beside it.
    """
    factors = list(dict.fromkeys(factor for study in studies for factor in study.factors))
    fields = [flatten(canonical(item.cell)) for study in studies for item in study.of_one_seed]
    changes = {factor: _partition([cell.get(factor) for cell in fields]) for factor in factors}
    lines = []
    for first, other in combinations(factors, 2):
        follows = "memory.kind" in (first, other) and first.startswith("memory.") and other.startswith("memory.")
        if changes[first] == changes[other] and len(set(changes[first])) > 1 and not follows:
            lines.append(
                f"Inseparable: `{first}` and `{other}` always change together, so no contrast tells them apart"
            )
    return lines


def _partition(values: list[object]) -> list[int]:
    """For each value, the place of the first equal one: equal partitions change together."""
    return [values.index(value) for value in values]
