"""Places: where retrieved content acts on the policy.

    context   m MEMORY tokens in the sequence, before the model's pass
    fuse      cross-attention of the head's states to the content, added through a linear layer (M 12.4 a)
    modulate  scale and shift of the head's states
    condition the condition of an action expert, as published; without parameters

The output layers of `fuse` and `modulate` start at zero, so that the policy starts as a policy without memory, bit for
bit. No layer here has a bias: content of zeros, or content of which no entry is present, changes no state of the head.

Legend: B slots, n entries of the content, d width of an entry, m MEMORY tokens, D width of the language model, H chunk,
A action dim.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from muvla.memory.contract import Dimensions, Retrieved
from muvla.memory.place_config import PlaceConfig
from muvla.memory.zero_linear import ZeroLinear


class Place(nn.Module, ABC):
    """Puts content (B, n, d) into the sequence or into the states of the action head."""

    def __init__(self, entries: int, width: int, dimensions: Dimensions):
        """Args: entries n, their width d, and the policy's sizes."""
        super().__init__()
        self.entries, self.width, self.dimensions = entries, width, dimensions

    def tokens(self, retrieved: Retrieved, summary: Tensor) -> Tensor:
        """(B, m, D) MEMORY tokens; only the place `context` has them.

        Args:
            retrieved: content (B, n, d), and which entries are present.
            summary: (B, D) this tick's observation, see `Query`.
        """
        return retrieved.content.new_empty(len(summary), 0, self.dimensions.width)

    def inject(self, retrieved: Retrieved, head_states: Tensor) -> Tensor:
        """The states (B, H·A, D) that the action head reads; unchanged in the place `context`.

        Args:
            retrieved: content (B, n, d), and which entries are present.
            head_states: (B, H·A, D) of any precision; the result has the same.
        """
        return head_states

    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations per slot and tick."""

    def _is_present(self, retrieved: Retrieved) -> Tensor:
        """(B, n) bool."""
        content, present = retrieved.content, retrieved.present
        return torch.ones(content.shape[:2], dtype=torch.bool, device=content.device) if present is None else present


class Attention(nn.Module):
    """Attention of queries (B, q, D) to content (B, n, d), with a single head: score = (W x)·c/√d.

    One matrix takes the part of a query's and a key's matrix. The output is a mean of the entries themselves, because
    the layer behind it can take the part of a value's matrix.
    """

    def __init__(self, query_width: int, width: int):
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=False)

    def forward(self, queries: Tensor, content: Tensor, present: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """(B, q, d): zeros where no entry is present.

        Args:
            queries: (B, q, D).
            content: (B, n, d).
            present: (B, n) bool.
            offset: (q, d) added to every projected query.
        """
        scores = (self.query(queries) + offset) @ content.mT / math.sqrt(content.shape[-1])
        scores = scores.masked_fill(~present[:, None], torch.finfo(scores.dtype).min)
        return (torch.softmax(scores, dim=-1) * present[:, None]) @ content

    def flops(self, queries: int, entries: int) -> int:
        query_width, width = self.query.in_features, self.query.out_features
        return 2 * queries * width * (query_width + 2 * entries)


class Context(Place):
    """m MEMORY tokens: token j is a learned vector, plus a matrix of token j times the content that token j attends to.

    The query is this tick's observation, before the model's pass. With no entry present, the tokens are the learned
    vectors, as in the mechanism `dummy`.
    """

    def __init__(self, entries: int, width: int, dimensions: Dimensions, m: int):
        super().__init__(entries, width, dimensions)
        self.initial = nn.Parameter(torch.empty(m, dimensions.width))
        self.out = nn.Parameter(torch.empty(m, width, dimensions.width))
        self.query = nn.Parameter(torch.empty(m, width)) if entries > 1 else None
        self.attention = Attention(dimensions.width, width) if entries > 1 else None

    def initialise_parameters(self, generator_of: Callable[[str], torch.Generator]) -> None:
        """Token by token: m = 4 and m = 8 share the parameters of their first four tokens."""
        for j in range(len(self.initial)):
            self.initial[j].normal_(0.0, 0.02, generator=generator_of(f"initial.{j}"))
            self.out[j].normal_(0.0, self.width**-0.5, generator=generator_of(f"out.{j}"))
            if self.query is not None:
                self.query[j].normal_(0.0, 1.0, generator=generator_of(f"query.{j}"))
        if self.attention is not None:
            weight = self.attention.query.weight
            weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator_of("attention.query.weight"))

    def tokens(self, retrieved: Retrieved, summary: Tensor) -> Tensor:
        content, present = retrieved.content, self._is_present(retrieved)
        if self.attention is None:
            attended = (content * present[..., None]).expand(-1, len(self.initial), -1)
        else:
            attended = self.attention(summary[:, None], content, present, self.query)
        return self.initial + torch.einsum("bmd,mdD->bmD", attended, self.out)

    def flops(self) -> int:
        m, width = self.out.shape[:2]
        attention = 0 if self.attention is None else self.attention.flops(m, self.entries)
        return attention + 2 * m * width * self.dimensions.width


class _AtHead(Place):
    """A place at the action head, with an output layer that starts at zero."""

    def __init__(self, entries: int, width: int, dimensions: Dimensions, outputs: int):
        super().__init__(entries, width, dimensions)
        self.out = ZeroLinear(width, outputs)

    @property
    def states(self) -> int:
        """States that the action head reads: H·A, or 1 for an action expert."""
        return self.dimensions.states or self.dimensions.chunk * self.dimensions.action


class Fuse(_AtHead):
    """Adds W·(the content that a state attends to) to every state of the head; W starts at zero (M 12.4 a).

    A single entry is added alike to every state.
    """

    def __init__(self, entries: int, width: int, dimensions: Dimensions):
        super().__init__(entries, width, dimensions, dimensions.width)
        self.attention = Attention(dimensions.width, width) if entries > 1 else None

    def inject(self, retrieved: Retrieved, head_states: Tensor) -> Tensor:
        content, present = retrieved.content, self._is_present(retrieved)
        states = head_states.to(content.dtype)
        if self.attention is None:
            attended = content * present[..., None]
        else:
            attended = self.attention(states, content, present)
        return (states + self.out(attended)).to(head_states.dtype)

    def flops(self) -> int:
        rows = 1 if self.attention is None else self.states
        attention = 0 if self.attention is None else self.attention.flops(self.states, self.entries)
        return attention + 2 * rows * self.width * self.dimensions.width


class Modulate(_AtHead):
    """Turns every state x of the head into x·(1 + γ) + β; γ and β are linear in the mean of the present entries."""

    def __init__(self, entries: int, width: int, dimensions: Dimensions):
        super().__init__(entries, width, dimensions, 2 * dimensions.width)

    def inject(self, retrieved: Retrieved, head_states: Tensor) -> Tensor:
        content, present = retrieved.content, self._is_present(retrieved)
        states, present = head_states.to(content.dtype), present[..., None].to(content.dtype)
        mean = (content * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
        scale, shift = self.out(mean).chunk(2, dim=-1)
        return (states * (1 + scale) + shift).to(head_states.dtype)

    def flops(self) -> int:
        return 4 * self.width * self.dimensions.width + 2 * self.states * self.dimensions.width


class Condition(Place):
    """Puts the content in the place of the feature that an action expert is conditioned on (MemoryVLA, CronusVLA)."""

    def inject(self, retrieved: Retrieved, head_states: Tensor) -> Tensor:
        """The content (B, n, D); the cognition token (B, 1, D) itself where the content has no entry."""
        return retrieved.content.to(head_states.dtype) if retrieved.content.shape[1] else head_states

    def flops(self) -> int:
        return 0


def build_place(config: PlaceConfig, entries: int, width: int, dimensions: Dimensions) -> Place:
    """The place that a configuration names.

    Args:
        config: names the place, and m.
        entries: n, the entries of the content that the mechanism retrieves.
        width: d, the width of an entry.
        dimensions: sizes of the policy.
    """
    if config.place == "context":
        return Context(entries, width, dimensions, config.m)
    return {"fuse": Fuse, "modulate": Modulate, "condition": Condition}[config.place](entries, width, dimensions)
