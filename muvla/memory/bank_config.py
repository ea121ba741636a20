"""Configuration of the retrieval bank, with the published values of MemoryVLA as defaults.

Legend: L capacity, D width of the language model.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from muvla.config import MemoryConfig
from muvla.config.data import DataConfig
from muvla.config.model import ModelConfig
from muvla.config.validation import is_whole, require
from muvla.errors import unknown_name
from muvla.memory.consolidation import Consolidation
from muvla.memory.place_config import CONDITION, PLACES
from muvla.memory.store_config import StoreConfig

PERCEPTUAL, COGNITIVE = "perceptual", "cognitive"


@dataclass(frozen=True)
class BankConfig(StoreConfig):
    """Every field is a factor, beside place, capacity and detachment.

    Published is the place `condition`: both streams condition an action expert.
    """

    places: ClassVar[tuple[str, ...]] = (*PLACES, CONDITION)

    kind: str = "bank"
    streams: Literal["both", "perceptual", "cognitive"] = "both"
    layers: int = 2  # of the retrieval
    heads: int = 1
    # Time code of an entry: none, the environment's step, or the count of queries.
    time_code: Literal["none", "step", "call"] = "step"
    fusion: Literal["gate", "add"] = "gate"
    consolidation: Consolidation = "merge"
    stored: Literal["raw", "fused"] = "raw"
    perceptual_width: int = 256
    # Whose code decides the details. Dexbotic compresses projected patches and gates their channels first; a merged
    # entry gets the mean time; an empty store is searched for the query itself; a sinusoid has 256 numbers.
    details: Literal["memoryvla", "dexbotic"] = "memoryvla"

    def __post_init__(self):
        super().__post_init__()
        for name, hint in typing.get_type_hints(type(self)).items():
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            if choices and getattr(self, name) not in choices:
                raise unknown_name(f"memory.{name}", getattr(self, name), choices)
        for name, most in (("layers", 100), ("heads", 1_000), ("perceptual_width", 100_000)):
            value = getattr(self, name)
            is_size = is_whole(value) and 1 <= value <= most
            require(is_size, f"memory.{name}", value, f"1 to {most}", "set a whole number, as published or nearby")
        require(
            self.perceptual_width % self.heads == 0,
            "memory.perceptual_width",
            self.perceptual_width,
            f"a multiple of memory.heads = {self.heads}",
            "change memory.perceptual_width or memory.heads",
        )

    @property
    def searched_times(self) -> Literal["", "step", "query"]:
        if not self.has_state:
            return ""
        return "query" if self.time_code == "call" else "step"

    @property
    def stream_names(self) -> tuple[str, ...]:
        return (PERCEPTUAL, COGNITIVE) if self.streams == "both" else (self.streams,)

    @property
    def perceives(self) -> bool:
        return self.is_read and self.place == CONDITION and PERCEPTUAL in self.stream_names

    def canonical(self) -> MemoryConfig:
        """Without a perceptual stream, its width is unused; `heads` is the least value that is allowed."""
        if not self.is_read or PERCEPTUAL in self.stream_names:
            return super().canonical()
        return replace(super().canonical(), perceptual_width=self.heads)

    def require_compatible(self, data: DataConfig, model: ModelConfig) -> None:
        super().require_compatible(data, model)
        require(
            COGNITIVE not in self.stream_names or model.size.width % self.heads == 0,
            "memory.heads",
            self.heads,
            f"a divisor of {model.size.width}, the width of model.size {model.size.name!r}",
            "change memory.heads",
        )
