"""Configuration of a memory mechanism: what every mechanism declares about itself.

Each mechanism defines its configuration beside its code, in `muvla.memory` or in a package of its author. The
configuration's class is looked up by name when a cell names it: this module imports neither torch nor a mechanism.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from muvla.config.data import DataConfig
from muvla.config.model import ModelConfig
from muvla.config.validation import require


@dataclass(frozen=True)
class MemoryConfig:
    """Base class of the mechanisms' configurations, and the way to make one: `MemoryConfig("tokens", m=4)`.

    A mechanism's configuration is a frozen dataclass that inherits from this class, sets the default of `kind` to the
    mechanism's name, and adds fields with defaults. A call of `MemoryConfig` itself makes the configuration that the
    name `kind` belongs to. A later field gets `metadata=ADDED_LATER`, so that train ids stay.
    """

    kind: str = "none"

    def __new__(cls, *values: Any, **fields: Any) -> MemoryConfig:
        mechanism = values[0] if values else fields.get("kind", "none")
        return object.__new__(_config_class(mechanism) if cls is MemoryConfig else cls)

    @classmethod
    def class_for(cls, data: dict[str, Any]) -> type[MemoryConfig]:
        """The class that plain data are read into, by their `kind`."""
        return _config_class(data.get("kind", "none"))

    @property
    def tokens(self) -> int:
        """m, the MEMORY tokens that the mechanism may put into the sequence; 0 does not mean that there is no
        memory."""
        return 0

    @property
    def has_state(self) -> bool:
        """True where there is a state to record and to intervene on."""
        return True

    @property
    def recurs(self) -> bool:
        """True where a write is read at a later tick."""
        return True

    @property
    def gradient_crosses(self) -> bool:
        """True where gradient flows from a tick to the writes of earlier ticks, so that K has a meaning.

        A mechanism that stores detached copies returns False; the trainer then cuts the graph after every tick.
        """
        return self.recurs

    @property
    def searched_times(self) -> Literal["", "step", "query"]:
        """The unit of the entries' times, where every tick searches entries with times; else empty."""
        return ""

    @property
    def perceives(self) -> bool:
        """True where the mechanism gives perceptual tokens to an action expert."""
        return False

    def canonical(self) -> MemoryConfig:
        """This configuration with every unused field at one value, so that equal computations share one identity."""
        return self

    def update_rule(self, K: int) -> str:
        """The mechanism in the words of a table, with truncation length K where K has a meaning."""
        return f"{self.kind}, K={K}" if self.gradient_crosses else self.kind

    @property
    def span(self) -> tuple[int, str]:
        """The steps that an episode must be able to have, and the field that asks for them; 0 where none does."""
        return 0, ""

    def require_step_limit(self, steps: int, where: str) -> None:
        """Raises MuvlaError where episodes are shorter than the mechanism's span.

        Args:
            steps: the most steps of an episode.
            where: whose step limit this is, for the error.
        """
        span, field = self.span
        limit = f"at most {steps}, the step limit of {where}"
        require(span <= steps, field, f"a span of {span} steps", limit, f"lower {field}")

    def require_compatible(self, data: DataConfig, model: ModelConfig) -> None:
        """Raises MuvlaError where the data or the model of a cell do not suit the mechanism.

        A mechanism with further demands calls this method and adds them.
        """
        require(
            data.order != "shuffled" or not self.recurs,
            "data.order",
            data.order,
            f"episodic or grouped where memory.kind is {self.kind!r}, which carries a state",
            "a shuffled frame has no tick before it to remember: set memory.kind to none or dummy",
        )
        require(
            model.memory_positions == "shift" or self.tokens <= model.reserve,
            "model.reserve",
            model.reserve,
            f"at least {self.tokens}, the MEMORY tokens of memory.kind {self.kind!r}",
            "raise model.reserve for the whole study, or set memory_positions to shift",
        )
        require(
            model.head != "diffusion" or model.guard == "context" or not self.recurs,
            "model.guard",
            model.guard,
            "context under the head diffusion with a memory that recurs",
            "set model.guard to context: under another guard the memory carries the noisy label on",
        )


def _config_class(mechanism: Any) -> type[MemoryConfig]:
    """The configuration's class, at run time and by name: registry and mechanisms lie above this package."""
    return importlib.import_module("muvla.memory.registry").get_mechanism(mechanism).Config
