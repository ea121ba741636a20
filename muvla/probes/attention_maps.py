"""The attention of the language model in one forward pass: probabilities per layer and head, reduced to segments.

Attention kernels do not return their probabilities, so this module computes them again. It uses the q and k (after
RoPE) and the segments that the backend received in that pass, and the guard's only definition, `may_attend`. The
probabilities times v equal the backend's output (tests/test_attention_maps.py, for every guard and padding).

The probabilities of one tick of a 7B model take 32 layers · 32 heads · S² · 4 bytes = 1.8 GB per slot at S = 670. They
are reduced layer by layer and slot by slot: at most one slot's (N, S, S) of one layer, 57 MB, is in memory.

Legend: B slots, L layers, N heads, S sequence, d head width, R kinds of rows, C kinds of keys, V cameras, P patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from muvla.models.attention import ATTENTION_NAME, as_multiplied, guarded_attention
from muvla.models.attention_plan import AttentionPlan
from muvla.models.guard import may_attend
from muvla.models.policy import Policy
from muvla.models.sequence import Layout, Segment

OBSERVED_NAME = "muvla_observed"
ACTION_READ = "ACTION_READ"  # the rows that the action head reads, one to the left of ACTION (`Layout.action_read`)
AttentionCallback = Callable[[int, Tensor, Tensor, Tensor, AttentionPlan, float, Tensor], None]


def probabilities(q: Tensor, k: Tensor, segments: Tensor, guard: str, scale: float, causal: bool = False) -> Tensor:
    """Return attention probabilities (B, N, S, S) in float32 or better.

    Every row sums to 1 and is exactly 0 where `may_attend` bars the key.

    Args:
        q: (B, N, S, d) queries.
        k: (B, N or fewer, S, d) keys.
        segments: (B or 1, S) segment of every token.
        guard: name of the guard.
        scale: of the scores.
        causal: a token sees only the tokens before it.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.to(wide) @ k.to(wide).transpose(-1, -2) * scale
    return scores.masked_fill(~_allowed(segments, guard, causal)[:, None], -torch.inf).softmax(dim=-1)


def _allowed(segments: Tensor, guard: str, causal: bool) -> Tensor:
    allowed = may_attend(segments[:, :, None], segments[:, None, :], guard)
    return allowed.tril() if causal else allowed


@contextmanager
def observe_attention(policy: Policy, callback: AttentionCallback) -> Iterator[None]:
    """Call `callback` for every layer of every forward pass of `policy` within the context.

    The layers compute the same as without it. `callback` receives the layer's number, the q, k and v (B, N, S, d) and
    the plan that the backend received, the scale, and the backend's output (B, S, N, d).
    """

    def observed(module, query, key, value, attention_mask, scaling=None, plan=None, **rest):
        answer = guarded_attention(module, query, key, value, attention_mask, scaling, plan=plan, **rest)
        given = as_multiplied(query, key, value)
        with torch.autocast(
            query.device.type, enabled=False
        ):  # otherwise `callback` would multiply in half precision too
            callback(module.layer_idx, *given, plan, scaling, answer[0])
        return answer

    AttentionInterface.register(OBSERVED_NAME, observed)
    config = policy.language.config
    config._attn_implementation = OBSERVED_NAME
    try:
        yield
    finally:
        config._attn_implementation = ATTENTION_NAME


@dataclass(frozen=True)
class Attention:
    """The attention of one slot's tick. The axis [N] exists if heads are separate; otherwise they are averaged."""

    rows: tuple[str, ...]  # R kinds of queries: segments by name, and ACTION_READ
    keys: tuple[str, ...]  # C kinds of keys: segments by name
    mass: np.ndarray  # (L, [N], R, C): mean over a segment's rows of the probability on a segment's keys; Σ over C is 1
    uniform: np.ndarray  # (R, C): the same under equal attention to every allowed key
    maps: dict[str, np.ndarray]  # row kind → (L, [N], V, P): mean over its rows of the probability on each patch
    rollout: dict[str, np.ndarray]  # row kind → (V, P): the same for attention rollout through all layers

    def patches(self, row: str) -> np.ndarray:
        """Return (V, P), the mean over layers and heads."""
        maps = self.maps[row]
        return maps.reshape(-1, *maps.shape[-2:]).mean(axis=0)


class Maps:
    """An attention callback that reduces the attention of slots 0 … `slots` − 1.

    `of(slot)` returns the last forward pass. In a tick that is the pass that counts: the last denoising pass of a
    diffusion head, and the pass after the guard's leak test.

    Attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, arXiv 2005.00928):
    with A the mean over heads, the product over layers of 0.5·A + 0.5·I, rows normalised, later layers from the left.
    """

    def __init__(self, policy: Policy, slots: int = 1, by_head: bool = False):
        self.layers, self.cameras = policy.config.size.layers, policy.interface.cameras
        self.slots, self.by_head = slots, by_head
        self._passes: list[_Pass] = []

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, out: Tensor
    ) -> None:
        if layer == 0:
            by_slot = plan.segments.expand(len(q), -1)[: self.slots]
            self._passes = [_Pass(plan.layout, segments, plan.guard) for segments in by_slot]
        for slot, reduced in enumerate(self._passes):
            rows = slice(slot, slot + 1)
            segments, causal = reduced.segments[None], plan.layout.causal
            probability = probabilities(q[rows], k[rows], segments, plan.guard, scale, causal)[0]
            reduced.add(probability, self.by_head)

    def of(self, slot: int) -> Attention:
        """Return the attention of a slot's last forward pass."""
        return self._passes[slot].result(self.cameras)


class _Pass:
    """The reduced attention of one slot, layer after layer."""

    def __init__(self, layout: Layout, segments: Tensor, guard: str):
        self.segments, self.vision = segments, segments == int(Segment.VISION)
        present = [s for s in Segment if s != Segment.PAD and bool((segments == int(s)).any())]
        self.keys = tuple(s.name for s in present)
        self.rows = (*self.keys, ACTION_READ)
        members = torch.stack([segments == int(s) for s in present])
        read = torch.zeros_like(self.vision)
        read[layout.action_read] = True
        self.to = members.float().T  # (S, C)
        self.mean = torch.cat([members, read[None]]).float()  # (R, S), averages over rows
        self.mean /= self.mean.sum(dim=1, keepdim=True)
        self.mapped = [row for row in (Segment.MEMORY.name, ACTION_READ) if row in self.rows]
        allowed = _allowed(segments[None], guard, layout.causal)[0].float()
        self.uniform = self.mean @ (allowed / allowed.sum(dim=1, keepdim=True)) @ self.to
        self.mass: list[Tensor] = []
        self.maps: list[Tensor] = []
        self.rolled = torch.eye(len(segments), device=segments.device)

    def add(self, probability: Tensor, by_head: bool) -> None:
        """Add the probabilities (N, S, S) of the next layer."""
        probability, average = probability.float(), probability.float().mean(dim=0)
        kept = self.mean @ (probability if by_head else average)
        self.mass.append((kept @ self.to).cpu())
        self.maps.append(self._on_patches(kept).cpu())
        mixed = 0.5 * average + 0.5 * torch.eye(len(average), device=average.device)
        self.rolled = (mixed / mixed.sum(dim=1, keepdim=True)) @ self.rolled

    def _on_patches(self, kept: Tensor) -> Tensor:
        """Return (…, mapped rows, V·P) for (…, R, S)."""
        return kept[..., [self.rows.index(row) for row in self.mapped], :][..., self.vision]

    def result(self, cameras: int) -> Attention:
        maps = torch.stack(self.maps).unflatten(-1, (cameras, -1)).numpy()
        rolled = self._on_patches(self.mean @ self.rolled).unflatten(-1, (cameras, -1)).cpu().numpy()
        return Attention(
            self.rows,
            self.keys,
            torch.stack(self.mass).numpy(),
            self.uniform.cpu().numpy(),
            {row: maps[..., i, :, :] for i, row in enumerate(self.mapped)},
            {row: rolled[i] for i, row in enumerate(self.mapped)},
        )
