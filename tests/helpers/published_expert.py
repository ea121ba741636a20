"""Published names of the action expert's parameters, written out without the loader."""

from __future__ import annotations

import re

from muvla.config.expert import ExpertConfig
from muvla.memory.contract import Conditions
from muvla.models.action_expert import ActionExpert

PATTERNS = (
    (r"^positional_embedding$", "positions"),
    (r"^condition_positional_embedding$", "window.positions"),
    (r"^x_embedder\.linear\.", "noisy."),
    (r"^t_embedder\.mlp\.0\.", "level.hidden."),
    (r"^t_embedder\.mlp\.2\.", "level.out."),
    (r"^z_embedder\.uncondition$", "null"),
    (r"^z_embedder\.linear_0\.", "window.past."),
    (r"^z_embedder\.extend_net\.0\.", "window.spread."),
    (r"^per_token_embedder\.linear\.", "perception."),
    (r"^final_layer\.linear\.", "out."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.out."),
    (r"\.norm3\.", ".cross.norm."),
    (r"\.per_attn\.in_proj_(weight|bias)$", r".cross.qkv.\1"),
    (r"\.per_attn\.out_proj\.", ".cross.out."),
    (r"\.cross_attn\.q\.", ".cross.query."),
    (r"\.cross_attn\.kv\.", ".cross.pair."),
    (r"\.cross_attn\.proj\.", ".cross.out."),
    (r"\.mlp\.(fc[12])\.", r".\1."),
)


def ours(name: str, windowed: bool) -> str:
    """Our name of a published parameter of `action_model.net`."""
    name = re.sub(r"^z_embedder\.linear\.", "window.current." if windowed else "feature.", name)
    for pattern, replacement in PATTERNS:
        name = re.sub(pattern, replacement, name)
    return name


def load_expert(golden, weights: str, dtype, chunk: int, windowed: bool = False, **changes) -> ActionExpert:
    """The tiny expert of a golden set with the weights that the set stores.

    Args:
        golden: the set.
        weights: prefix of the weights, such as `random.`.
        dtype: precision of the expert.
        chunk: H.
        windowed: CronusVLA's expert, with three past features.
        changes: fields of the configuration.
    """
    stored = golden.weights(f"{weights}action_model.net.")
    perception = 8 if "per_token_embedder.linear.weight" in stored else 0
    config = ExpertConfig(layers=2, width=32, heads=4, **changes)
    expert = ActionExpert(config, Conditions(4 if windowed else None, perception), chunk, 7, 32)
    unread = {name for name in stored if name.startswith("history_embedder.")}
    expert.load_state_dict({ours(name, windowed): t for name, t in stored.items() if name not in unread})
    return expert.to(dtype)
