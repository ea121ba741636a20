"""A mechanism whose retrieved content acts at a place that the configuration names.

Legend: B slots, n entries of the content, d width of an entry, m MEMORY tokens, T text, D width, V·P patches.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from muvla.memory.base import Memory
from muvla.memory.contract import Clock, Dimensions, Observed, Read, Retrieved, State, Taps
from muvla.memory.place import build_place
from muvla.memory.place_config import PlaceConfig


@dataclass(frozen=True)
class Query:
    """The parts of a tick that search or write a store. Under `context` no part sees an ACTION row."""

    observed: Observed  # this tick's observation
    summary: Tensor  # (B, D) of root mean square about 1
    patches: Tensor  # (B, D) mean of the projected patches, of root mean square 1

    @classmethod
    def before(cls, observed: Observed) -> Query:
        """Before the model's pass: the summary is the mean of the embedded prompt plus the mean patch."""
        patches = _unit(observed.vision.mean(dim=1))
        places = torch.arange(observed.text.shape[1], device=observed.text.device)
        is_text = places >= observed.text.shape[1] - observed.text_lengths[:, None]  # padding is on the left
        text = (observed.text * is_text[..., None]).sum(dim=1) / observed.text_lengths[:, None]
        return cls(observed, _unit(_unit(text) + patches), patches)

    @classmethod
    def after(cls, taps: Taps) -> Query:
        """After the model's pass: the summary is the final state at the last TEXT row."""
        patches = _unit(taps.observed.vision.mean(dim=1))
        return cls(taps.observed, taps.text, patches.to(taps.text.dtype))


def _unit(x: Tensor) -> Tensor:
    """`x` (B, D) at root mean square 1."""
    return F.rms_norm(x, x.shape[-1:])


class PlacedMemory(Memory):
    """Base class of the mechanisms with a place.

    A mechanism sets `Config` to a `PlaceConfig`, `observes` if necessary, and defines `init_state`, `look_up` and
    `update`. It calls `super().__init__` with the entries n and the width d of the content that `look_up` returns.

    In the place `context` the store is searched before the model's pass, by this tick's observation. In the other
    places it is searched after the pass. The store is written after the pass in every place.

    The emptied twin searches a store that holds the entry of the current tick alone, written by the query that the
    search itself uses, and carries nothing.
    """

    Config: type[PlaceConfig]
    config: PlaceConfig

    def __init__(self, config: PlaceConfig, dimensions: Dimensions, entries: int, width: int):
        super().__init__(config, dimensions)
        self.place = build_place(config, entries, width, dimensions)

    @property
    def reads_observation(self) -> bool:
        return True

    @abstractmethod
    def look_up(self, state: State, query: Query, clock: Clock) -> Retrieved:
        """Content (B, n, d) of a store, and which entries are present.

        Args:
            state: leaves (B, …).
            query: before or after the model's pass, by the place.
            clock: steps, queries and episode starts.
        """

    @abstractmethod
    def update(self, state: State, query: Query, clock: Clock, retrieved: Retrieved | None) -> State:
        """The store after this tick's entry is written.

        Args:
            state: leaves (B, …), as `look_up` saw them.
            query: after the model's pass; in the emptied twin, the query of the search.
            clock: steps, queries and episode starts.
            retrieved: what `look_up` returned at this tick; None in the emptied twin.
        """

    def read(self, state: State, observed: Observed, clock: Clock) -> Read:
        if self.config.place != "context":
            return super().read(state, observed, clock)
        query = Query.before(observed)
        retrieved = self._search(state, query, clock)
        return Read(self.place.tokens(retrieved, query.summary), retrieved=retrieved)

    def retrieve(self, state: State, query: Taps, clock: Clock) -> Retrieved | None:
        return None if self.config.place == "context" else self._search(state, Query.after(query), clock)

    def inject(self, retrieved: Retrieved, head_states: Tensor) -> Tensor:
        return self.place.inject(retrieved, head_states)

    def write(self, state: State, taps: Taps, clock: Clock, read: Read, retrieved: Retrieved | None) -> State:
        if self.config.emptied:
            return state
        return self.update(state, Query.after(taps), clock, read.retrieved if retrieved is None else retrieved)

    def _search(self, state: State, query: Query, clock: Clock) -> Retrieved:
        if self.config.emptied:
            state = self.update(self.init_state(len(clock.is_first)), query, clock, None)
        return self.look_up(state, query, clock)

    def flops(self) -> int:
        """Search, write and place, per slot and tick."""
        return self.store_flops() + self.place.flops()

    @abstractmethod
    def store_flops(self) -> int:
        """Floating-point operations of `look_up` and `update`, per slot and tick."""
