"""The backends `flash` and `flex`, which need a GPU, and what stands in the way of them elsewhere.

Legend: B slots, S sequence, N query heads, G key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import pad

from muvla.errors import MuvlaError

if TYPE_CHECKING:
    from muvla.models.attention import AttentionPlan

HALF = (torch.float16, torch.bfloat16)


def obstacle(backend: str, device: str, dtype: torch.dtype) -> MuvlaError | None:
    """Why a backend cannot compute on tensors of this device type and dtype; None if it can."""
    if backend not in ("flash", "flex"):
        return None
    # flex as well: on a CPU torch has no backward pass for it, and dies of some masks.
    if device != "cuda":
        return _unfit(f"{backend} on {device}", "tensors on a CUDA device", "use split")
    if backend == "flash" and dtype not in HALF:
        return _unfit(f"flash in {dtype}", "tensors in float16 or bfloat16", "use split, or half precision")
    if backend == "flash" and isinstance(why := varlen_kernel(), ImportError):
        remedy = "use split, or install the extra (`pip install --no-build-isolation -e '.[flash]'`)"
        return _unfit(f"flash without its kernel ({why})", "the package flash-attn", remedy)
    return None


def _unfit(got: str, expected: str, remedy: str) -> MuvlaError:
    return MuvlaError("model.attention", got=got, expected=expected, remedy=remedy)


@lru_cache(maxsize=1)
def varlen_kernel() -> Callable[..., Tensor] | ImportError:
    """flash-attn's kernel for packed sequences, or why it cannot be imported: absent, or built for another torch."""
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError as error:
        return error
    return flash_attn_varlen_func


@dataclass(frozen=True)
class Packed:
    """Some of a batch's tokens, slot after slot and without padding."""

    index: Tensor  # (n,) int64, into the batch's B·S tokens
    ends: Tensor  # (B + 1,) int32, where each slot's tokens end, after a leading 0
    most: int  # of one slot


def pack(is_token: Tensor, *parts: slice) -> Packed:
    """(B, S) bool, False at PAD, and parts of the sequence → the tokens in them.

    `most` counts PAD too: the kernel cuts its work by it, and a slot must get the same cut whoever its neighbours are.
    """
    chosen = torch.zeros_like(is_token)
    for part in parts:
        chosen[:, part] = is_token[:, part]
    ends = pad(chosen.sum(dim=1).cumsum(dim=0), (1, 0)).to(torch.int32)
    return Packed(chosen.flatten().nonzero()[:, 0], ends, sum(part.stop - part.start for part in parts))


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, groups: list[tuple[Packed, Packed]], scale: float, kernel: Callable[..., Tensor]
) -> Tensor:
    """(B, N, S, d), (B, G, S, d) twice and the (rows, keys) of every group → (B, N, S, d), zero at PAD.

    `kernel` has the signature of flash-attn's `flash_attn_varlen_func`, and is called once per group.
    """
    slots, heads, length, width = q.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    out = q.new_zeros(slots * length, heads, width)
    for rows, keys in groups:
        part = kernel(
            q.index_select(0, rows.index),
            k.index_select(0, keys.index),
            v.index_select(0, keys.index),
            rows.ends,
            keys.ends,
            rows.most,
            keys.most,
            softmax_scale=scale,
            causal=False,
        )
        out.index_copy_(0, rows.index, part)
    return out.unflatten(0, (slots, length)).transpose(1, 2)


def flash(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by flash-attn on every row group, packed; raises MuvlaError where it cannot run."""
    if problem := obstacle("flash", q.device.type, q.dtype):
        raise problem
    return packed_attention(q, k, v, plan.packed(len(q)), scale, varlen_kernel())


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    # fullgraph: else torch, after eight shapes in one process, goes on with another kernel and all scores in memory.
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def flex(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by one compiled kernel that skips blocks without an allowed pair; raises MuvlaError
    where it cannot run."""
    if problem := obstacle("flex", q.device.type, q.dtype):
        raise problem
    return _compiled_flex()(q, k, v, block_mask=plan.block_mask, scale=scale, enable_gqa=grouped)
