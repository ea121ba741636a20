"""Kinds of interventions by name.

A package outside this project adds a kind by an entry point in the group `muvla.interventions`; see
docs/extending/intervention.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from muvla.interventions.kind import InterventionKind
from muvla.utils.registry import Registry

INTERVENTIONS = Registry(
    "muvla.interventions",
    {
        "noise_unit": "muvla.interventions.noise:NOISE_UNIT",
        "noise_init": "muvla.interventions.noise:NOISE_INIT",
        "noise_norm": "muvla.interventions.noise:NOISE_NORM",
        "noise_matched": "muvla.interventions.noise:NOISE_MATCHED",
        "noise_relative": "muvla.interventions.noise:NOISE_RELATIVE",
        "zero": "muvla.interventions.replacement:ZERO",
        "empty": "muvla.interventions.replacement:EMPTY",
        "freeze_first": "muvla.interventions.replacement:FREEZE_FIRST",
        "freeze": "muvla.interventions.replacement:FREEZE",
        "permute_tokens": "muvla.interventions.permutation:PERMUTE_TOKENS",
        "zero_perception": "muvla.interventions.perception:ZERO_PERCEPTION",
        "shuffle_time": "muvla.interventions.times:SHUFFLE_TIME",
        "skip_read": "muvla.interventions.skipping:SKIP_READ",
        "stale": "muvla.interventions.replacement:STALE",
        "drop": "muvla.interventions.removal:DROP",
        "lesion": "muvla.interventions.removal:LESION",
        "mean": "muvla.interventions.transplant:MEAN",
        "transplant": "muvla.interventions.transplant:TRANSPLANT",
        "transplant_same": "muvla.interventions.transplant:TRANSPLANT_SAME",
        "transplant_self": "muvla.interventions.transplant:TRANSPLANT_SELF",
        "direction": "muvla.interventions.transplant:DIRECTION",
        "orthogonal": "muvla.interventions.transplant:ORTHOGONAL",
    },
    "intervention",
)
_KIND = re.compile(r"\w+")


def get_intervention_kind(name: str) -> InterventionKind:
    """Raises MuvlaError with the nearest match for an unknown name."""
    return INTERVENTIONS.load(name)


def sham_of(name: str, among: Iterable[str]) -> list[str]:
    """The interventions in `among` that are shams of `name`: with its argument, tokens, site and schedule."""
    kind_name = _KIND.match(name).group()
    if kind_name not in INTERVENTIONS.places():
        return []
    shams = [sham + name[len(kind_name) :] for sham in get_intervention_kind(kind_name).shams]
    there = set(among)
    return [sham for sham in shams if sham in there]
