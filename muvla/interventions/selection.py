"""The rows of a state that an intervention acts on.

A whole-state intervention acts on all leaves. Every other intervention is element-wise: it acts on the valid entries of
the float leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from muvla.memory.contract import State, Units

Rows = slice | Tensor | None  # rows of a leaf, as a slice or as indices; None is the whole leaf


@dataclass(frozen=True)
class Selection:
    """The units of one slot's state that an intervention may act on."""

    units: Units
    valid: Tensor | None = None  # (count,) bool, the units that hold content; None: all

    def rows(
        self, state: State, chosen: tuple[int, int] | None, whole_state: bool, on_times: bool = False
    ) -> dict[str, Rows]:
        """Leaf → the rows of it that the intervention acts on, None for the whole leaf; leaves left out stay.

        Args:
            state: one slot's leaves.
            chosen: first and stop of `[a:b]`, None for all units.
            whole_state: False for an element-wise intervention.
            on_times: the intervention acts on the units' times alone.
        """
        content = {name for name, leaf in state.items() if leaf.is_floating_point()} - set(self.units.times)
        content = set(self.units.times) if on_times else content
        leaves = [name for name in state if whole_state or name in content]
        if chosen is not None:
            leaves = [name for name in leaves if name in self.units.leaves]
        rows: Rows = None if chosen is None else slice(*chosen)
        if self.valid is not None and not whole_state:
            first, stop = chosen or (0, self.units.count)
            index = self.valid.nonzero().flatten()
            rows = index[(index >= first) & (index < stop)]
        return {name: rows if name in self.units.leaves else None for name in leaves}


WHOLE = Selection(Units())  # a state without units: no [a:b]


def take_rows(state: State, rows: dict[str, Rows]) -> State:
    """The leaves named in `rows`, cut to these rows."""
    return {
        name: state[name] if chosen is None else state[name][chosen] for name, chosen in rows.items() if name in state
    }


def put_rows(leaf: Tensor, rows: Rows, part: Tensor) -> Tensor:
    """The leaf with `part` at `rows`."""
    if rows is None:
        return part
    result = leaf.clone()
    result[rows] = part.to(result)
    return result
