"""No memory: no parameters, no tokens, no random draws."""

from __future__ import annotations

import torch
from torch import Tensor

from muvla.memory.base import Memory, State


class NoMemory(Memory):
    recurrent = False

    def __init__(self, embedding: int):
        super().__init__(0, embedding)
        # A buffer, so that the device and dtype of what is read follow the policy's.
        self.register_buffer("empty", torch.empty(1, 0, embedding), persistent=False)

    def init_state(self, slots: int) -> State:
        return {"tokens": self.empty.expand(slots, 0, self.embedding)}

    def read(self, state: State) -> Tensor:
        return state["tokens"]

    def write(self, state: State, out: Tensor) -> State:
        return state
