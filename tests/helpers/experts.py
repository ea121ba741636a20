"""Overrides for cells with an action expert at tiny size: CogACT, MemoryVLA and CronusVLA."""

from __future__ import annotations

from typing import Any

import torch

EXPERT: dict[str, Any] = {
    "model.head": "expert",
    "model.causal": True,
    "model.proprio": False,
    "model.expert.layers": 2,
    "model.expert.width": 64,
    "model.expert.heads": 4,
    "data.tail": "repeat",
    "truncation": 1,
}
COGACT = EXPERT | {"memory.kind": "none", "memory.m": 0}
MEMORYVLA = EXPERT | {
    "memory.kind": "bank",
    "memory.place": "condition",
    "memory.capacity": 3,
    "memory.perceptual_width": 16,
}
DEXBOTIC = MEMORYVLA | {"memory.details": "dexbotic", "memory.heads": 4, "memory.stored": "fused"}
CRONUSVLA = EXPERT | {"memory.kind": "feature_fifo", "memory.place": "condition", "memory.capacity": 3}
POLICIES = {"cogact": COGACT, "memoryvla": MEMORYVLA, "dexbotic": DEXBOTIC, "cronusvla": CRONUSVLA}


@torch.no_grad()
def with_expert_output(policy):
    """The policy with random numbers in the parts of its expert that start at zero, so that conditions matter."""
    generator = torch.Generator().manual_seed(7)
    policy.head.out.weight.normal_(std=0.1, generator=generator)
    for block in policy.head.blocks:
        if block.cross is not None:
            for name, parameter in block.cross.named_parameters():
                if name.endswith("weight") and parameter.ndim == 2:
                    parameter.normal_(std=0.2, generator=generator)
    return policy
