"""The order of interventions in tables and figures: every sham follows the intervention that it controls for."""

from __future__ import annotations

from collections.abc import Iterable

from muvla.interventions import sham_of


def with_shams(names: Iterable[str]) -> list[tuple[str, bool]]:
    """(intervention, whether it is the sham of the one before) in order, every sham after its intervention."""
    names = list(names)
    shams = {name: sham_of(name, names) for name in names}
    followers = {sham for several in shams.values() for sham in several}
    ordered = []
    for name in names:
        if name not in followers:
            ordered += [(name, False), *((sham, True) for sham in shams[name])]
    return ordered


def sham_label(name: str, is_sham: bool) -> str:
    """An intervention's name in a table: "`zero`", "↳ sham `transplant_same`"."""
    return f"↳ sham `{name}`" if is_sham else f"`{name}`"
