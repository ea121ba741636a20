"""A release in four bits, for small GPUs: the matrices of the language model's layers, by the package bitsandbytes.

NF4 in blocks of 64 (QLoRA, arXiv 2305.14314) with products in bfloat16 and without double quantization, as OpenVLA's
`finetune.py` has it. With its scales a number takes 4.5 bits: the layers of Llama 2 7B take 3.6 GB instead of 13. All
other parts are as in bfloat16.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from muvla.errors import MuvlaError
from muvla.models.policy import Policy

# The train id of a release calls these settings nf4: other settings would make another policy.
SETTINGS = {"quant_type": "nf4", "compress_statistics": False}


def import_bitsandbytes() -> ModuleType:
    """Returns the optional package; raises MuvlaError if it cannot be imported."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise MuvlaError(
            "--precision",
            got=f"nf4 without bitsandbytes ({error})",
            expected="the extra four-bit",
            remedy="run `pip install -e '.[four-bit]'`",
        ) from None
    return bitsandbytes


def quantize(policy: Policy, device: str) -> None:
    """Quantizes the linear layers of the language model's layers, in place and on `device`.

    The matrices move to the device one after the other, so the device never holds all of them in bfloat16.
    """
    package = import_bitsandbytes()
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
            small.register_forward_pre_hook(_to_bfloat16)
            # Newer versions have a kernel for some CPUs that takes other formats and refuses some widths.
            small.support_avx512bf16_for_cpu = False
            layer.set_submodule(name, small.to(device))


def _to_bfloat16(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Casts as autocast does for other linear layers. The layer returns the dtype of its input; norms use float32."""
    return (inputs[0].to(torch.bfloat16),)
