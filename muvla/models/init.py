"""Initial values that depend on (seed, parameter name) alone.

Two cells of one training seed share every parameter that both have, bit for bit, whatever other parameters they hold.
Draws from one global generator would shift every later parameter as soon as a parameter is added.
"""

from __future__ import annotations

import math
from collections.abc import Container

import torch
from torch import nn

from muvla.utils.rng import torch_rng


@torch.no_grad()
def initialise(model: nn.Module, seed: int, only: Container[str] | None = None) -> None:
    """Draws all parameters, or only the parameters named in `only`.

    Linear and convolution weights are normal with standard deviation 1/√fan_in, biases 0 and norms 1. Embeddings, class
    and register tokens are normal(0, 0.02). A module that defines `initialise_parameters(generator_of)` sets its
    parameters itself.
    """
    special = [(name, module) for name, module in model.named_modules() if hasattr(module, "initialise_parameters")]
    claimed = {id(p) for _, module in special for p in module.parameters()}
    chosen = {id(p) for name, p in model.named_parameters() if only is None or name in only}
    for prefix, module in special:
        if not any(id(p) in chosen for p in module.parameters()):
            continue
        given = [(p, p.clone()) for p in module.parameters() if id(p) not in chosen]
        module.initialise_parameters(lambda name, prefix=prefix: torch_rng(seed, "init", f"{prefix}.{name}"))
        for parameter, value in given:
            parameter.copy_(value)
    owners = {id(p): module for module in model.modules() for p in module.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if id(parameter) in claimed or id(parameter) not in chosen:
            continue
        module, leaf = owners[id(parameter)], name.rsplit(".", 1)[-1]
        if leaf == "bias":
            parameter.zero_()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = parameter[0].numel()
            _normal(parameter, 1 / math.sqrt(fan_in), seed, name)
        elif parameter.ndim == 1:  # the weight of a norm, or a layer scale
            parameter.fill_(1.0)
        else:
            _normal(parameter, 0.02, seed, name)


def _normal(parameter: nn.Parameter, std: float, seed: int, name: str) -> None:
    draw = torch.empty(parameter.shape, dtype=torch.float32)
    draw.normal_(0.0, std, generator=torch_rng(seed, "init", name))
    parameter.copy_(draw)
