"""A release in four bits, for small GPUs: the matrices of the language model's layers, by the package bitsandbytes.

NF4 in blocks of 64 (QLoRA, arXiv 2305.14314) with products in bfloat16 and without double quantisation, as OpenVLA's
own `finetune.py` has it. With its scales a number takes 4.5 bits: the layers of Llama 2 7B 3.6 GB instead of 13. All
else is as in bfloat16.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from muvla.errors import MuvlaError
from muvla.models.policy import Policy

# Part of what a train id of a release calls nf4: with other settings it would be another policy.
SETTINGS = {"quant_type": "nf4", "compress_statistics": False}


def bitsandbytes() -> ModuleType:
    """Raises MuvlaError where the package, an optional one, cannot be imported."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise MuvlaError(
            "--precision",
            got=f"nf4 without bitsandbytes ({error})",
            expected="the extra four-bit",
            remedy="run `.venv/bin/pip install -e '.[four-bit]'`",
        ) from None
    return bitsandbytes


def quantise(policy: Policy, device: str) -> None:
    """The linear layers of the language model's layers, in place and on `device`. One matrix after another is moved
    there and quantised, so that they are never there together in bfloat16."""
    package = bitsandbytes()
    for layer in policy.language.layers:
        linear = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        for name, module in linear.items():
            small = package.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=False,
                compute_dtype=torch.bfloat16,
                device="meta",
                **SETTINGS,
            )
            small.weight = package.nn.Params4bit(module.weight.data, module=small, **SETTINGS)
            small.register_forward_pre_hook(_in_half)
            # In newer versions some CPUs have a kernel of their own, which takes other formats and not every width.
            small.support_avx512bf16_for_cpu = False
            layer.set_submodule(name, small.to(device))


def _in_half(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """As autocast does for other linear layers: it gives back the dtype that it got, and norms compute in float32."""
    return (inputs[0].to(torch.bfloat16),)
