"""The tensors that a released directory must hold for a policy: which rules apply, and every name and shape."""

from __future__ import annotations

import torch
from torch import Tensor

from muvla.checkpoints import names
from muvla.checkpoints.names import Rule, Shapes
from muvla.config.model import SizeConfig
from muvla.models.policy import Policy

DTYPES = {
    "weights": torch.bfloat16,
    "head": torch.bfloat16,
    "noisy": torch.float32,
    "proprio": torch.float32,
    "memory": torch.bfloat16,
}


def get_rules(policy: Policy, film: bool) -> dict[str, list[Rule]]:
    """Returns the rules of every part, in the order of a directory's parts.

    `film` belongs to the directory: a policy with FiLM may start from a directory without.
    """
    config = policy.config
    rules = {"weights": names.vla_rules(config.size, towers=not film)}
    if film:
        rules["vision"] = names.vision_rules(config.size)
    rules["head"] = names.head_rules(config.head)
    if policy.noisy:
        rules["noisy"] = names.noisy_rules()
    if policy.proprio:
        rules["proprio"] = names.proprio_rules()
    if policy.memory.tokens and hasattr(policy.memory, "initial"):  # the mechanism that was published
        rules["memory"] = names.memory_rules()
    return rules


def expected_shapes(policy: Policy, film: bool) -> dict[str, Shapes]:
    """Returns, by part, the published names and shapes of everything that belongs to a policy."""
    ours = dict(policy.named_parameters())
    unread = unread_shapes(ours, policy.config.size, film)
    return {
        part: _published_shapes(rules, ours) | unread.get(part, {}) for part, rules in get_rules(policy, film).items()
    }


def unread_shapes(ours: dict[str, Tensor], size: SizeConfig, film: bool) -> dict[str, Shapes]:
    """Returns, by part, the published tensors that no policy reads; with FiLM also the towers in the weights."""
    if not film:
        return {"weights": names.carried_shapes(size)}
    towers = _published_shapes(names.tower_rules(size), ours)
    return {"weights": names.carried_shapes(size) | towers, "vision": names.carried_vision_shapes(size)}


def _published_shapes(rules: list[Rule], ours: dict[str, Tensor]) -> Shapes:
    return {name: shape for rule in rules for name, shape in rule.published_shapes(ours).items()}
