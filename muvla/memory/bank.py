"""A bank of past observations that every tick searches: MemoryVLA (arXiv 2508.19236), and Dexbotic's variant.

Legend: B slots, L capacity, V cameras, P patches, F features of a patch, d perceptual width, D width of the language
model, N tokens of an entry (V·P in the perceptual stream, 1 in the cognitive stream).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from muvla.memory.bank_config import COGNITIVE, PERCEPTUAL, BankConfig
from muvla.memory.bank_stream import BankStream, StreamSettings
from muvla.memory.compressor import Compressor, GateFirstCompressor, compressor_flops
from muvla.memory.consolidation import Store
from muvla.memory.contract import Clock, Conditions, Dimensions, Observation, Retrieved, State, Units
from muvla.memory.place_config import CONDITION
from muvla.memory.placed import Query
from muvla.memory.stored import StoredMemory

PER_ENTRY = ("entries", "times", "counts")  # leaves of a stream


class BankMemory(StoredMemory):
    """Two streams of entries with time stamps, searched by cross-attention and fused with the query.

        perceptual  x = SE(patches)            (B, V·P, d)
        cognitive   x = last TEXT row's state  (B, 1, D)
        h = retrieval(x; entries, times)       x̃ = g ⊙ x + (1 − g) ⊙ h, or (x + h)/2
        content     [W_p x̃_perceptual ; x̃_cognitive]            (B, n, D), for the place
        store       x (raw) or x̃ (fused), then merge or drop

    Published are streams, search, fusion and store, in the place `condition`: x̃_cognitive is the feature of an action
    expert, which attends to x̃_perceptual. The other places are ours. W_p takes the part of the expert's embedding of
    perceptual tokens there.

    In the place `context` the bank is searched before the model's pass. The cognitive query is then the summary of this
    tick's vision and text (`Query`), and the cognitive entry is the last TEXT row's final state, which has seen the
    MEMORY tokens: raw and fused are alike there. The emptied twin stores the query itself.

    A fused write stores x̃ as the search returned it: an intervention at the site `read` changes the content alone.
    Leaves: `<stream>_entries` (B, L, N, width), `_times` and `_counts` (B, L), and `length` (B,) for both streams.
    """

    Config = BankConfig
    config: BankConfig

    def __init__(self, config: BankConfig, dimensions: Dimensions):
        patches, width = dimensions.vision, dimensions.width
        shapes = {PERCEPTUAL: (patches, config.perceptual_width), COGNITIVE: (1, width)}
        shapes = {name: shapes[name] for name in config.stream_names}
        super().__init__(config, dimensions, entries=sum(tokens for tokens, _ in shapes.values()), width=width)
        settings = StreamSettings(
            config.capacity,
            config.layers,
            config.heads,
            config.time_code != "none",
            config.fusion == "gate",
            config.consolidation,
            config.details == "dexbotic",
        )
        self.streams = nn.ModuleDict({name: BankStream(*shape, settings) for name, shape in shapes.items()})
        self.cameras, self.observes = dimensions.cameras, self.observed_by(config)
        if PERCEPTUAL in shapes:
            projected = config.details == "dexbotic"
            compressor = GateFirstCompressor if projected else Compressor
            self.compressor = compressor(width if projected else dimensions.features, config.perceptual_width)
            if config.place != CONDITION:
                self.embed = nn.Linear(config.perceptual_width, width, bias=False)  # W_p

    @property
    def conditions(self) -> Conditions:
        return Conditions(perception=self.config.perceptual_width if self.config.perceives else 0)

    @classmethod
    def observed_by(cls, config: BankConfig) -> tuple[Observation, ...]:
        """The patches before the projector, for MemoryVLA's perceptual stream."""
        return ("features",) if PERCEPTUAL in config.stream_names and config.details == "memoryvla" else ()

    @property
    def undefined_interventions(self) -> Mapping[str, str]:
        return (
            {"shuffle_time": "memory.time_code is none, so no time is read"} if self.config.time_code == "none" else {}
        )

    @property
    def units(self) -> Units:
        entries, times, counts = (tuple(f"{name}_{leaf}" for name in self.streams) for leaf in PER_ENTRY)
        return Units("entries", self.config.capacity, entries + times + counts, times, counts)

    def init_state(self, slots: int) -> State:
        return self._state({name: stream.empty_store(slots) for name, stream in self.streams.items()})

    def look_up(self, state: State, query: Query, clock: Clock) -> Retrieved:
        """Content (B, n, D); attention (B, streams, layers, L) by entry; gates (B, streams), the mean share of x."""
        lookups, entry, observed = {}, {}, dict(self._tokens(query))
        for name, tokens in observed.items():
            lookups[name] = self.streams[name].lookup(tokens, self._store(state, name), self._now(clock))
            entry[name] = lookups[name].fused if self.config.stored == "fused" else tokens
        if self.config.place == "context":
            entry.pop(COGNITIVE, None)  # it is known after the model's pass
        return Retrieved(
            self._content({name: result.fused for name, result in lookups.items()}),
            perception=lookups[PERCEPTUAL].fused if self.config.perceives else None,
            perception_now=observed[PERCEPTUAL] if self.config.perceives else None,
            gates=torch.stack([result.gate.detach().mean(dim=(1, 2)) for result in lookups.values()], dim=1),
            attention=torch.stack([result.mass for result in lookups.values()], dim=1),
            entry=entry,
        )

    def _content(self, fused: dict[str, Tensor]) -> Tensor:
        """(B, n, D) for the place. An action expert gets perceptual tokens apart; without a cognitive stream n is 0."""
        if self.config.place == CONDITION:
            first = next(iter(fused.values()))
            return fused.get(COGNITIVE, first.new_empty(len(first), 0, self.embedding))
        return torch.cat([self.embed(x) if name == PERCEPTUAL else x for name, x in fused.items()], dim=1)

    def update(self, state: State, query: Query, clock: Clock, retrieved: Retrieved | None) -> State:
        entry = {} if retrieved is None else retrieved.entry
        if len(entry) < len(self.streams):
            entry = dict(self._tokens(query, without=entry)) | entry
        return self._state(
            {
                name: stream.append(self._store(state, name), entry[name], self._now(clock))
                for name, stream in self.streams.items()
            }
        )

    def _tokens(self, query: Query, without: State | tuple = ()) -> Iterator[tuple[str, Tensor]]:
        """(stream, x (B, N, width)) for each stream that is not in `without`, in float32 as stored."""
        if PERCEPTUAL in self.streams and PERCEPTUAL not in without:
            patches = query.observed.features
            if patches is None:  # projected patches (B, V·P, D)
                patches = query.observed.vision.unflatten(1, (self.cameras, -1))
            yield PERCEPTUAL, self.compressor(patches.to(self.compressor.expand.weight.dtype))
        if COGNITIVE in self.streams and COGNITIVE not in without:
            yield COGNITIVE, query.summary[:, None].to(self.empty.dtype)

    def _now(self, clock: Clock) -> Tensor:
        """(B,) in the unit of the time code; environment steps without one."""
        return clock.query if self.config.time_code == "call" else clock.step

    def _store(self, state: State, stream: str) -> Store:
        return Store(*(state[f"{stream}_{leaf}"] for leaf in PER_ENTRY), state["length"])

    def _state(self, stores: dict[str, Store]) -> State:
        """Both streams store one entry per tick and hold at most L: they share a length."""
        leaves = {f"{name}_{leaf}": getattr(store, leaf) for name, store in stores.items() for leaf in PER_ENTRY}
        return leaves | {"length": next(iter(stores.values())).length}

    def store_flops(self) -> int:
        flops = sum(stream.flops() for stream in self.streams.values())
        if PERCEPTUAL in self.streams:
            tokens = self.streams[PERCEPTUAL].tokens
            flops += compressor_flops(self.compressor, tokens, self.cameras)
            flops += 2 * tokens * self.embed.weight.numel() if self.config.place != CONDITION else 0
        return flops
