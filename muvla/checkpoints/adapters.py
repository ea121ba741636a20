"""`lora_adapter/` of a released directory: a training's adapters in the published names, as peft reads them.

timm joins query, key and value in one matrix; here they are three matrices with an adapter each. Export joins the three
adapters into one of triple rank: the A matrices stacked, the B matrices on a block diagonal.

Legend: r rank.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from muvla.checkpoints.layout import get_rules
from muvla.config import LoraConfig
from muvla.models.lora import ADAPTER, get_adapters
from muvla.models.policy import Policy

FOLDER = "lora_adapter"


def make_adapter_files(policy: Policy, lora: LoraConfig, base: str) -> dict[str, bytes]:
    """Returns the adapter's files by name below the directory; nothing for a policy without adapters.

    `base` is the checkpoint that the adapters belong to.
    """
    layers = get_adapters(policy)
    if not layers:
        return {}
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for part, rule in [(part, rule) for part, rules in get_rules(policy, policy.config.film).items() for rule in rules]:
        ours = [name.removesuffix(".weight") for name in rule.ours]
        if not all(name in layers for name in ours):
            continue
        module = rule.published[0].removesuffix(".weight")
        if part == "vision":  # names in this part begin inside FiLM's wrapper (spec 1.10)
            module = f"vision_backbone.{module}"
        downs = [layers[name].lora_A[ADAPTER].weight.detach() for name in ours]
        ups = [layers[name].lora_B[ADAPTER].weight.detach() for name in ours]
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.cat(downs).contiguous().cpu()
        joined = torch.block_diag(*ups) if len(ups) > 1 else ups[0]  # a convolution has one adapter of 4 dimensions
        tensors[f"base_model.model.{module}.lora_B.weight"] = joined.contiguous().cpu()
        ranks[module] = len(ours) * lora.rank
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(ranks),
        "rank_pattern": {module: rank for module, rank in ranks.items() if rank != lora.rank},
        "alpha_pattern": {module: lora.alpha * rank / lora.rank for module, rank in ranks.items() if rank != lora.rank},
    }
    return {
        f"{FOLDER}/adapter_config.json": json.dumps(config, indent=2).encode(),
        f"{FOLDER}/adapter_model.safetensors": serialise(tensors, metadata={"format": "pt"}),
    }
