"""The contract of every memory mechanism.

Legend: B slots, m memory width, D width of the language model.

A state is a dictionary of tensors whose first dimension is the slot; nothing is keyed by episode. All methods are pure:
they return a new state. Per tick, always in this order (`muvla.recurrence`): reset → intervene (before read) → read →
model → write → intervene (after write) → truncate. No mechanism detaches: where gradient stops is the trainer's
business.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muvla.errors import MuvlaError

State = dict[str, Tensor]


class Memory(nn.Module):
    """Base class; a mechanism implements `init_state`, `read` and `write`."""

    recurrent: bool  # whether `write` carries anything from tick to tick

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.width, self.embedding = width, embedding  # m, D

    def init_state(self, slots: int) -> State:
        """State at an episode's start; learned parts stay in the graph."""
        raise TypeError(f"{type(self).__name__} must define init_state")

    def read(self, state: State) -> Tensor:
        """(B, m, D) MEMORY tokens for this tick."""
        raise TypeError(f"{type(self).__name__} must define read")

    def write(self, state: State, out: Tensor) -> State:
        """The state after this tick, from `out` (B, m, D): the final hidden states at the MEMORY rows."""
        raise TypeError(f"{type(self).__name__} must define write")

    def reset(self, state: State, is_first: Tensor) -> State:
        """Slots with `is_first` (B,) back at the initial state; the other slots untouched (spec 2.3)."""
        if not state:
            return state
        initial = self.init_state(len(is_first))
        return {
            name: torch.where(is_first.view(-1, *[1] * (leaf.ndim - 1)), initial[name], leaf)
            for name, leaf in state.items()
        }

    def state_spec(self) -> dict[str, tuple[int, ...]]:
        """Shape of one slot's state, by leaf."""
        return {name: tuple(leaf.shape[1:]) for name, leaf in self.init_state(1).items()}

    def cost(self) -> dict[str, int]:
        """What the mechanism costs: parameters, tokens per tick, numbers carried per slot."""
        return {
            "parameters": sum(p.numel() for p in self.parameters()),
            "tokens": self.width,
            "state": sum(leaf.numel() for leaf in self.init_state(1).values()),
        }

    def load(self, leaves: State) -> State:
        """A state from exported leaves, checked against this mechanism; raises MuvlaError for another shape."""
        spec = self.state_spec()
        got = {name: tuple(leaf.shape[1:]) for name, leaf in leaves.items()}
        if got != spec:
            raise MuvlaError("memory state", got=got, expected=str(spec), remedy="load it into the cell that wrote it")
        return dict(leaves)


def export(state: State) -> State:
    """A detached copy of a state that later writes cannot change."""
    return {name: leaf.detach().clone() for name, leaf in state.items()}


def detach(state: State, where: Tensor | None = None) -> State:
    """The same values outside the graph, in the slots `where` (B,) or in all: the trainer's truncation."""
    if where is None:
        return {name: leaf.detach() for name, leaf in state.items()}
    return {
        name: torch.where(where.view(-1, *[1] * (leaf.ndim - 1)), leaf.detach(), leaf) for name, leaf in state.items()
    }
