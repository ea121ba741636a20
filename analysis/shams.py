"""The order of interventions in tables and figures: every sham follows the intervention that it controls for."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Kind → the kinds with the same side effects and without the claimed content.
SHAMS = {"transplant": ("transplant_same", "transplant_self"), "direction": ("orthogonal",)}
KIND = re.compile(r"[a-z_]+")


def shams_of(name: str, among: Iterable[str]) -> list[str]:
    """The shams of an intervention that are `among` these names: they share its tokens, site and schedule."""
    prefix = KIND.match(name).group()
    twins = [sham + name[len(prefix) :] for sham in SHAMS.get(prefix, ())]
    return [twin for twin in twins if twin in set(among)]


def with_shams(names: Iterable[str]) -> list[tuple[str, bool]]:
    """(intervention, whether it is the sham of the one before) in order, every sham after its intervention."""
    names = list(names)
    shams = {name: shams_of(name, names) for name in names}
    followers = {sham for several in shams.values() for sham in several}
    ordered = []
    for name in names:
        if name not in followers:
            ordered += [(name, False), *((sham, True) for sham in shams[name])]
    return ordered


def sham_label(name: str, is_sham: bool) -> str:
    """An intervention's name in a table: "`zero`", "↳ sham `transplant_same`"."""
    return f"↳ sham `{name}`" if is_sham else f"`{name}`"
