"""No memory: no parameters, no tokens, no random draws."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.memory.base import Memory
from muvla.memory.contract import Clock, Read, Retrieved, State, Taps
from muvla.memory.token_config import TokenConfig


@dataclass(frozen=True)
class NoMemoryConfig(TokenConfig):
    """All fields are unused."""

    kind: str = "none"

    @property
    def tokens(self) -> int:
        return 0

    @property
    def has_state(self) -> bool:
        return False


class NoMemory(Memory):
    """No memory tokens: a policy without memory.

    The mechanism has no parameter and draws no random number.
    """

    Config = NoMemoryConfig

    def init_state(self, slots: int) -> State:
        # One leaf without numbers: checkpoints of cells without memory hold it.
        return {"tokens": self.empty.expand(slots, 0, self.embedding)}

    def read(self, state: State, observed=None, clock=None) -> Read:
        return Read(state["tokens"])

    def write(
        self,
        state: State,
        taps: Taps,
        clock: Clock | None = None,
        read: Read | None = None,
        retrieved: Retrieved | None = None,
    ) -> State:
        return state
