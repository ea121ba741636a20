"""Low-rank adapters on every linear layer of towers, projector and language model (spec 5), by peft.

The published adapters have rank 32 and alpha 16 on timm's joined query-key-value matrices. Here query, key and value
are separate matrices with an adapter each. A tower's last block has no adapter, because nothing reads it. The patch
embeddings have one with `lora.patches`, as published. The published
training adds FiLM after the adapters, so FiLM is trained in full (spec 1.10).

Legend: r rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from muvla.config import LoraConfig
from muvla.config.model import SizeConfig
from muvla.errors import MuvlaError
from muvla.utils.rng import torch_rng

ADAPTER = "default"  # peft's name of a policy's only adapter
TRAINED_IN_FULL = ("head.", "proprio.", "memory.", "noisy.", "film.")


PATCH_EMBEDDINGS = (
    "vision.dino.embeddings.patch_embeddings.projection",
    "vision.siglip.embeddings.patch_embedding",
)  # convolutions, which the published adapters include


def adapter_targets(size: SizeConfig, towers: bool = True, patches: bool = False) -> list[str]:
    """Returns the names of the layers that get an adapter.

    The names are written out, because versions of peft differ in what "all linear layers" means. `towers` is False if
    the towers are frozen; `patches` adds the patch embeddings.
    """
    names = [f"vision.projector.{i}" for i in (0, 2, 4)]
    names += PATCH_EMBEDDINGS if towers and patches else ()
    for i in range(size.dino.layers - 1 if towers else 0):
        block = f"vision.dino.encoder.layer.{i}"
        names += [f"{block}.attention.{p}_proj" for p in "qkvo"] + [f"{block}.mlp.fc{n}" for n in "12"]
    for i in range(size.siglip.layers - 1 if towers else 0):
        block = f"vision.siglip.encoder.layers.{i}"
        names += [f"{block}.self_attn.{p}_proj" for p in ("q", "k", "v", "out")]
        names += [f"{block}.mlp.fc{n}" for n in "12"]
    for i in range(size.layers):
        layer = f"language.layers.{i}"
        names += [f"{layer}.self_attn.{p}_proj" for p in "qkvo"]
        names += [f"{layer}.mlp.{p}_proj" for p in ("gate", "up", "down")]
    return names


def add_adapters(policy: nn.Module, size: SizeConfig, lora: LoraConfig, seed: int) -> None:
    """Adds adapters and freezes everything but adapters and the modules of TRAINED_IN_FULL.

    At the start an adapter adds nothing: A is normal(0, 1/r), keyed by (seed, name), and B is zero.

    Args:
        policy: changed in place.
        size: number of layers.
        lora: rank and alpha.
        seed: training seed.

    Raises:
        MuvlaError: the listed layers are not exactly the linear layers that compute.
    """
    names = adapter_targets(size, towers=policy.config.vision == "trained", patches=lora.patches)
    linear = {
        name
        for name, module in policy.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not name.startswith(TRAINED_IN_FULL)
    }
    listed = set(names) - set(PATCH_EMBEDDINGS)
    if linear != listed:
        raise MuvlaError(
            "lora",
            got=f"{len(linear)} linear layers, among them {sorted(linear ^ listed)[:3]}",
            expected=f"the {len(names)} listed layers",
            remedy="report this as a bug: a library renamed or added layers",
        )
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, bias="none", target_modules=names, init_lora_weights=False
    )
    peft.inject_adapter_in_model(config, policy, adapter_name=ADAPTER)
    for name, parameter in policy.named_parameters():
        is_adapter = ".lora_" in name
        parameter.requires_grad_(is_adapter or name.startswith(TRAINED_IN_FULL))
        if is_adapter:
            with torch.no_grad():
                parameter.data = parameter.data.float()
                if ".lora_A." in name:
                    parameter.normal_(0.0, 1 / lora.rank, generator=torch_rng(seed, "init", name))
                else:
                    parameter.zero_()


def get_adapters(policy: nn.Module) -> dict[str, LoraLayer]:
    """Returns the adapted layers by name; empty without adapters."""
    return {name: module for name, module in policy.named_modules() if isinstance(module, LoraLayer)}


class MergedParameters(Mapping[str, Tensor]):
    """A policy's parameters under the names and with the values that they have without adapters: W + (alpha/r)·B·A.

    Each value is computed on access, because all values at once would take as much memory again as the policy. The
    policy does not change.
    """

    def __init__(self, policy: nn.Module):
        self._plain = {n.replace(".base_layer.", "."): p for n, p in policy.named_parameters() if ".lora_" not in n}
        self._layers = {f"{name}.weight": layer for name, layer in get_adapters(policy).items()}

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        weight = self._plain[name]
        if name not in self._layers:
            return weight
        return (weight.float() + self._layers[name].get_delta_weight(ADAPTER)).to(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)
