"""The attention backends, and the conditions under which each can compute.

Legend: B slots, S sequence, N query heads, G key heads, d head width.

| backend | computes | needs |
|---|---|---|
| `split` | one torch kernel per group of rows that see the same keys; a mask only where there is padding | |
| `dense` | one torch kernel with the whole mask | |
| `flash` | flash-attn per group, padding removed by packing | CUDA, half precision, flash-attn |
| `flex` | one kernel that torch compiles for the guard | CUDA |
| `auto` | `flash` or `split`, see `resolve` | |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from muvla.errors import MuvlaError
from muvla.models.attention_plan import AttentionPlan, Packed

_log = logging.getLogger(__name__)

HALF = (torch.float16, torch.bfloat16)


def dense(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by one kernel with the boolean mask.

    Args:
        q: (B, N, S, d).
        k, v: (B, G, S, d).
        plan: the pass's masks and row groups.
        scale: factor of the scores.
        grouped: True if G < N.
    """
    return scaled_dot_product_attention(q, k, v, attn_mask=plan.mask, scale=scale, enable_gqa=grouped)


def split(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by one kernel per row group, unmasked without padding. Args: as of `dense`."""
    if plan.layout.causal:
        mask = plan.mask if plan.layout.padded else None
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
        )
    pieces: list[tuple[slice, Tensor]] = []
    for rows, keys, key_mask in plan.row_groups:
        queries = torch.cat([q[:, :, r] for r in rows], dim=2) if len(rows) > 1 else q[:, :, rows[0]]
        out = scaled_dot_product_attention(
            queries, k[:, :, :keys], v[:, :, :keys], attn_mask=key_mask, scale=scale, enable_gqa=grouped
        )
        pieces += list(zip(rows, out.split([r.stop - r.start for r in rows], dim=2), strict=True))
    pieces.sort(key=lambda piece: piece[0].start)
    return torch.cat([out for _, out in pieces], dim=2) if len(pieces) > 1 else pieces[0][1]


def flash(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by flash-attn on every packed row group. Args: as of `dense`.

    Raises MuvlaError if flash-attn cannot run on these tensors.
    """
    if problem := obstacle("flash", q.device.type, q.dtype):
        raise problem
    return packed_attention(q, k, v, plan.packed(len(q)), scale, varlen_kernel(), plan.layout.causal)


def flex(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, grouped: bool) -> Tensor:
    """(B, N, S, d) → (B, N, S, d) by one compiled kernel that skips fully masked blocks. Args: as of `dense`.

    Raises MuvlaError if flex cannot run on these tensors.
    """
    if problem := obstacle("flex", q.device.type, q.dtype):
        raise problem
    return _compiled_flex()(q, k, v, block_mask=plan.block_mask, scale=scale, enable_gqa=grouped)


BACKENDS: dict[str, Callable[..., Tensor]] = {"dense": dense, "split": split, "flash": flash, "flex": flex}


def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    groups: list[tuple[Packed, Packed]],
    scale: float,
    kernel: Callable[..., Tensor],
    causal: bool = False,
) -> Tensor:
    """Attention over packed groups.

    Args:
        q: (B, N, S, d).
        k, v: (B, G, S, d).
        groups: (rows, keys) of every group.
        scale: factor of the scores.
        kernel: a function with the signature of flash-attn's `flash_attn_varlen_func`; called once per group.
        causal: a token sees only the tokens before it.

    Returns:
        (B, N, S, d), zero at PAD.
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
            causal=causal,
        )
        out.index_copy_(0, rows.index, part)
    return out.unflatten(0, (slots, length)).transpose(1, 2)


@lru_cache(maxsize=1)
def varlen_kernel() -> Callable[..., Tensor] | ImportError:
    """Returns flash-attn's kernel for packed sequences, or the error of its import."""
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError as error:
        return error
    return flash_attn_varlen_func


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    # Without fullgraph torch would, after eight shapes in one process, use another kernel that holds all scores.
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def obstacle(backend: str, device: str, dtype: torch.dtype) -> MuvlaError | None:
    """Returns the reason why a backend cannot compute on tensors of this device type and dtype; None if it can."""
    if backend not in ("flash", "flex"):
        return None
    # torch has no backward pass for flex on a CPU, and some masks crash it.
    if device != "cuda":
        return _obstacle(f"{backend} on {device}", "tensors on a CUDA device", "set model.attention to split")
    if backend == "flash" and dtype not in HALF:
        remedy = "set model.attention to split, or model.precision to bfloat16"
        return _obstacle(f"flash in {dtype}", "tensors in float16 or bfloat16", remedy)
    if backend == "flash" and isinstance(reason := varlen_kernel(), ImportError):
        remedy = "set model.attention to split, or run `pip install --no-build-isolation -e '.[flash]'`"
        return _obstacle(f"flash without its kernel ({reason})", "the package flash-attn", remedy)
    return None


def _obstacle(got: str, expected: str, remedy: str) -> MuvlaError:
    return MuvlaError("model.attention", got=got, expected=expected, remedy=remedy)


def usable_backends(device: str, dtype: torch.dtype) -> list[str]:
    """Returns the backends that can compute on tensors of this device type and dtype."""
    return [name for name in BACKENDS if obstacle(name, device, dtype) is None]


def resolve(backend: str, device: str, dtype: torch.dtype, padded: bool) -> str:
    """Returns the backend that computes. For `auto` this depends on the tensors, and is logged once per process.

    Args:
        backend: `model.attention`.
        device: device type of the tensors.
        dtype: dtype of the tensors.
        padded: True if the batch may hold padding.
    """
    if backend != "auto":
        return backend
    if not padded:
        return _choose("split", "without padding it needs no mask, so torch can use its own flash kernel")
    if problem := obstacle("flash", device, dtype):
        return _choose("split", f"flash needs {problem.expected}, got {problem.got}")
    return _choose("flash", "split would need a mask for the padding, and flash removes the padding")


@lru_cache(maxsize=16)
def _choose(backend: str, reason: str) -> str:
    """Cached, because every layer of every tick asks and the log needs one line."""
    _log.info("attention: auto is %s: %s", backend, reason)
    return backend
