"""The contract of every memory mechanism.

Legend: B slots, m MEMORY tokens, D width of the language model, H chunk, A action dim.

A mechanism owns a state per slot and takes part in up to four moments of a tick. `muvla.recurrence` keeps the order:

    reset → intervene (before read) → read → model → retrieve → intervene (read) → inject → head → write
    → intervene (after write) → truncate

A state is a dictionary of tensors; the first dimension of every leaf is the slot, and nothing is keyed by episode. All
methods are pure: they return new tensors. No mechanism detaches: the trainer decides where gradient stops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from muvla.config import MemoryConfig
from muvla.errors import MuvlaError
from muvla.memory.contract import (
    Clock,
    Conditions,
    Dimensions,
    Observation,
    Observed,
    Read,
    Retrieved,
    State,
    Taps,
    Units,
)


class Memory(nn.Module, ABC):
    """Base class of the mechanisms.

    A mechanism sets `Config` and defines `init_state` and `write`. With MEMORY tokens it defines `read` too. To look
    things up after the model's pass, it defines `retrieve` and `inject`.
    """

    Config: ClassVar[type[MemoryConfig]]
    observes: ClassVar[tuple[Observation, ...]] = ()  # parts of an observation that the policy has to keep for it
    # Interventions that have no meaning for this mechanism: name → reason. They are refused before an episode runs.
    undefined_interventions: ClassVar[Mapping[str, str]] = {}
    settles: ClassVar[bool] = False  # True where writes may end before the episode, so that the state stays as it is

    def __init__(self, config: MemoryConfig, dimensions: Dimensions):
        super().__init__()
        self.config, self.embedding = config, dimensions.width  # D
        # The tokens of a mechanism without tokens: a buffer, so that their device and dtype follow the policy's.
        self.register_buffer("empty", torch.empty(1, 0, self.embedding), persistent=False)

    @classmethod
    def observed_by(cls, config: MemoryConfig) -> tuple[Observation, ...]:
        """The parts of an observation that the policy keeps for a mechanism of this configuration."""
        return cls.observes

    @property
    def tokens(self) -> int:
        """m, the MEMORY tokens that a read may put into the sequence; 0 does not mean that there is no memory."""
        return self.config.tokens

    @property
    def recurs(self) -> bool:
        """True where a write is read at a later tick."""
        return self.config.recurs

    @property
    def has_state(self) -> bool:
        """True where there is a state to record and to intervene on."""
        return self.config.has_state

    @property
    def conditions(self) -> Conditions:
        """Sizes of the condition that the mechanism gives to an action expert: by default one feature."""
        return Conditions()

    @property
    def through_model(self) -> bool:
        """True where a read reaches the model's input; else all ticks of a window could share one model pass."""
        return self.tokens > 0

    @property
    def reads_observation(self) -> bool:
        """True where a read depends on the observation too, so that it moves although the state is frozen."""
        return False

    @property
    def units(self) -> Units:
        """The parts that `[a:b]` of an intervention counts; without units, such an intervention is refused."""
        return Units()

    def valid_units(self, state: State) -> Tensor | None:
        """The units that hold content.

        Args:
            state: one slot's leaves, without the slot dimension.

        Returns:
            (count,) bool; None where all do. Element-wise interventions act on these units, and take their moments
            over these.
        """
        return None

    @abstractmethod
    def init_state(self, slots: int) -> State:
        """The state at an episode's start, leaves (slots, …). Learned parts stay in the graph, so that they learn."""

    def reset(self, state: State, is_first: Tensor) -> State:
        """Slots with `is_first` (B,) at the initial state; the other slots unchanged (spec 2.3)."""
        if not state:
            return state
        initial = self.init_state(len(is_first))
        return {name: where_slot(is_first, initial[name], leaf) for name, leaf in state.items()}

    def read(self, state: State, observed: Observed, clock: Clock) -> Read:
        """The MEMORY tokens of this tick, before the model's pass.

        Args:
            state: leaves (B, …).
            observed: this tick's observation.
            clock: steps, queries and episode starts.

        Returns:
            Tokens (B, m, D), and which of them are present. By default no tokens, for a mechanism with m = 0.
        """
        if self.tokens:
            raise NotImplementedError(f"{type(self).__name__} has {self.tokens} MEMORY tokens and defines no read")
        return Read(self.empty.expand(len(clock.is_first), 0, self.embedding))

    def retrieve(self, state: State, query: Taps, clock: Clock) -> Retrieved | None:
        """Looks up content after the model's pass; None, the default, looks nothing up.

        Args:
            state: leaves (B, …), as `read` saw them.
            query: final hidden states at rows that cannot see ACTION under the guard `context`.
            clock: steps, queries and episode starts.
        """
        return None

    def inject(self, retrieved: Retrieved, head_states: Tensor) -> Tensor:
        """Returns the states that the action head reads instead of `head_states` (B, H·A, D). Identity by default.

        This is the only place where ACTION states meet what was retrieved; the result is never written.
        """
        return head_states

    @abstractmethod
    def write(self, state: State, taps: Taps, clock: Clock, read: Read, retrieved: Retrieved | None) -> State:
        """The state after this tick.

        Args:
            state: leaves (B, …), as `read` saw them.
            taps: final hidden states at MEMORY rows and at the last TEXT row, and the observation.
            clock: steps, queries and episode starts.
            read: what went into the sequence, after interventions.
            retrieved: what `retrieve` returned, after interventions.

        Returns:
            Leaves of the same names, shapes and dtypes.
        """

    def state_spec(self) -> dict[str, tuple[int, ...]]:
        """Leaf → shape of one slot's state."""
        return {name: tuple(leaf.shape[1:]) for name, leaf in self.init_state(1).items()}

    def cost(self) -> dict[str, int]:
        """The cost of the mechanism.

        Returns:
            `parameters`; MEMORY `tokens` per tick; `flops`, floating-point operations per slot and tick outside the
            language model; `state`, numbers carried per slot; `bytes`, bytes carried per slot. A mechanism whose store
            is never read carries nothing.
        """
        leaves = self.init_state(1).values() if self.recurs else ()
        return {
            "parameters": sum(p.numel() for p in self.parameters()),
            "tokens": self.tokens,
            "flops": self.flops(),
            "state": sum(leaf.numel() for leaf in leaves),
            "bytes": sum(leaf.numel() * leaf.element_size() for leaf in leaves),
        }

    def flops(self) -> int:
        """Floating-point operations of read, retrieve, inject and write, per slot and tick."""
        return 0

    def load(self, leaves: State) -> State:
        """A state from exported leaves. Raises MuvlaError where names, shapes or dtypes are not this mechanism's."""
        expected = {name: (tuple(leaf.shape[1:]), leaf.dtype) for name, leaf in self.init_state(1).items()}
        got = {name: (tuple(leaf.shape[1:]), leaf.dtype) for name, leaf in leaves.items()}
        if got != expected:
            raise MuvlaError(
                "memory state", got=got, expected=str(expected), remedy="load it into the cell that wrote it"
            )
        return dict(leaves)


def where_slot(condition: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """`chosen` (B, …) in the slots where `condition` (B,) is True, else `other`."""
    return torch.where(condition.view(-1, *[1] * (other.ndim - 1)), chosen, other)


def float_leaves(state: State) -> State:
    """The leaves that hold floating-point numbers."""
    return {name: leaf for name, leaf in state.items() if leaf.is_floating_point()}


def export(state: State) -> State:
    """A detached copy of a state that later writes cannot change."""
    return {name: leaf.detach().clone() for name, leaf in state.items()}


def detach(state: State, where: Tensor | None = None) -> State:
    """The same values outside the graph, in the slots `where` (B,) or in all: the trainer's truncation."""
    if where is None:
        return {name: leaf.detach() for name, leaf in state.items()}
    return {name: where_slot(where, leaf.detach(), leaf) for name, leaf in state.items()}
