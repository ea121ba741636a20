"""Guarded attention as an attention function of transformers.

Legend: B slots, S sequence, N heads, d head width.

Attention is never left to a library's default. transformers reads "no mask" as causal, and its eager kernel adds a
boolean mask as 0/1; both errors are silent. This function calls torch's own kernel, where no mask means that every row
sees every key.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AttentionInterface

from muvla.errors import MuvlaError
from muvla.models.attention_plan import AttentionPlan
from muvla.models.backends import BACKENDS, resolve

ATTENTION_NAME = "muvla_guarded"


def guarded_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, plan: AttentionPlan | None = None, **_
):
    """Computes attention under the plan's guard, with the signature that transformers expects.

    Args:
        module: unused.
        query: (B, N, S, d).
        key, value: (B, G, S, d) with G key heads.
        attention_mask: unused; the plan holds the mask.
        scaling: factor of the scores.
        dropout: unused.
        plan: guard, layout and backend of this pass.

    Returns:
        (B, S, N, d), and None in place of attention weights.
    """
    if plan is None:
        raise MuvlaError(
            "plan",
            got=None,
            expected="an AttentionPlan; attention without a guard is never a default",
            remedy="call the language model through Policy.step",
        )
    grouped = key.shape[1] != query.shape[1]
    query, key, value = as_multiplied(query, key, value)
    backend = resolve(plan.backend, query.device.type, query.dtype, plan.layout.padded)
    out = BACKENDS[backend](query, key, value, plan, scaling, grouped)
    return out.transpose(1, 2).contiguous(), None


def as_multiplied(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Casts to the dtype of autocast. Rotary positions leave q and k wider than v, and autocast casts torch's kernels
    alone."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)


AttentionInterface.register(ATTENTION_NAME, guarded_attention)
