"""The tensors of the published checkpoints and of this project: names, shapes, and rules for both directions.

OpenVLA stores two timm towers, a projector and a Llama. OFT adds an action head, a proprio projector and, with FiLM,
the vision backbone once more; μVLA adds a memory module. Each addition has its own file (spec 1.2, 1.3, 1.7, 1.10,
2.7). A rule maps a few published tensors to a few of ours and back. Tensors without a rule do not belong to the policy
and are copied unchanged (`carried_shapes`).

Legend: D width, P patches, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from muvla.config.model import SizeConfig

Shapes = dict[str, tuple[int, ...]]

DINO, SIGLIP = "vision_backbone.featurizer.", "vision_backbone.fused_featurizer."
LLAMA = "language_model.model."


@dataclass(frozen=True)
class Rule:
    """Published tensors and our tensors that hold the same numbers; full names on both sides."""

    published: tuple[str, ...]
    ours: tuple[str, ...]
    load: Callable[..., tuple[Tensor, ...]] = lambda *tensors: tensors
    save: Callable[..., tuple[Tensor, ...]] = lambda *tensors: tensors

    def published_shapes(self, ours: dict[str, Tensor]) -> Shapes:
        """Returns the published shapes, by saving empty tensors of our shapes; computes no numbers."""
        empty = [torch.empty(ours[name].shape, device="meta") for name in self.ours]
        return {n: tuple(t.shape) for n, t in zip(self.published, self.save(*empty), strict=True)}


def tower_rules(size: SizeConfig) -> list[Rule]:
    """Returns the rules of both towers."""
    return [*_dino_rules(size.dino.layers), *_siglip_rules(size.siglip.layers)]


def vla_rules(size: SizeConfig, towers: bool = True) -> list[Rule]:
    """Returns the rules of the merged weights: projector, language model and, with `towers`, both towers."""
    return [
        *(tower_rules(size) if towers else ()),
        *_pairs("projector.fc1", "vision.projector.0"),
        *_pairs("projector.fc2", "vision.projector.2"),
        *_pairs("projector.fc3", "vision.projector.4"),
        *_llama_rules(size.layers),
    ]


HEADS = {"l1": "model.", "diffusion": "noise_predictor.mlp_resnet."}  # prefix of each head's tensor names


def head_rules(head: str) -> list[Rule]:
    """Returns the rules of the action head, `l1` or `diffusion` (spec 1.7, 1.11)."""
    renamed = {"layer_norm1": "norm_in", "fc1": "fc_in", "layer_norm2": "norm_out", "fc2": "fc_out"}
    for i in range(2):
        renamed |= {
            f"mlp_resnet_blocks.{i}.ffn.0": f"blocks.{i}.norm",
            f"mlp_resnet_blocks.{i}.ffn.1": f"blocks.{i}.fc",
        }
    return [rule for theirs, ours in renamed.items() for rule in _pairs(f"{HEADS[head]}{theirs}", f"head.{ours}")]


def proprio_rules() -> list[Rule]:
    return [*_pairs("fc1", "proprio.fc1"), *_pairs("fc2", "proprio.fc2")]


def noisy_rules() -> list[Rule]:
    """Returns the rules of the module that embeds the noisy actions of a diffusion head (spec 1.11)."""
    return [*_pairs("fc1", "noisy.fc1"), *_pairs("fc2", "noisy.fc2")]


def memory_rules() -> list[Rule]:
    return [Rule(("initial_memory",), ("memory.initial",))]


def vision_rules(size: SizeConfig) -> list[Rule]:
    """Returns the rules of the vision backbone with FiLM: FiLM's layers, and both towers, whose blocks it wraps (spec
    1.10)."""
    rules = [
        replace(rule, published=tuple(re.sub(r"(blocks\.\d+\.)", r"\1block.", name) for name in rule.published))
        for rule in tower_rules(size)
    ]
    for theirs, ours, tower in ((DINO, "film.dino", size.dino), (SIGLIP, "film.siglip", size.siglip)):
        for i in range(tower.layers - 1):
            for layer in ("scale", "shift"):
                rules += _pairs(f"{theirs}blocks.{i}.{layer}", f"{ours}.{i}.{layer}")
    return rules


def carried_shapes(size: SizeConfig) -> Shapes:
    """Returns the published tensors that no policy reads: the language model's output layer and SigLIP's pooling."""
    return {"language_model.lm_head.weight": (size.vocabulary, size.width)} | _pooling_shapes(size)


def carried_vision_shapes(size: SizeConfig) -> Shapes:
    """Returns the unread tensors of the vision backbone with FiLM: SigLIP's pooling, and FiLM in the last blocks."""
    shapes = _pooling_shapes(size)
    for theirs, tower in ((DINO, size.dino), (SIGLIP, size.siglip)):
        for layer in ("scale", "shift"):
            name = f"{theirs}blocks.{tower.layers - 1}.{layer}"
            shapes |= {f"{name}.weight": (tower.width, size.width), f"{name}.bias": (tower.width,)}
    return shapes


def _pooling_shapes(size: SizeConfig) -> Shapes:
    width, mlp = size.siglip.width, size.siglip.mlp
    pool: Shapes = {"latent": (1, 1, width)}
    for name, out, in_ in (("q", width, width), ("kv", 2 * width, width), ("proj", width, width)):
        pool |= {f"{name}.weight": (out, in_), f"{name}.bias": (out,)}
    pool |= {"norm.weight": (width,), "norm.bias": (width,)}
    for name, out, in_ in (("mlp.fc1", mlp, width), ("mlp.fc2", width, mlp)):
        pool |= {f"{name}.weight": (out, in_), f"{name}.bias": (out,)}
    return {f"{SIGLIP}attn_pool.{name}": shape for name, shape in pool.items()}


def never_published(names: Iterable[str]) -> set[str]:
    """Returns our names without a published counterpart: transformers' mask token, which only pretraining uses."""
    return {name for name in names if name.endswith("embeddings.mask_token")}


def _pairs(theirs: str, ours: str, leaves: tuple[str, ...] = ("weight", "bias")) -> Iterator[Rule]:
    for leaf in leaves:
        yield Rule((f"{theirs}.{leaf}",), (f"{ours}.{leaf}",))


def _split_in_three(joined: Tensor) -> tuple[Tensor, ...]:
    return joined.chunk(3)


def _join(*parts: Tensor) -> tuple[Tensor]:
    return (torch.cat(parts),)


def _block(theirs: str, ours: str, norm: str, qkv: str, out: str) -> Iterator[Rule]:
    """Yields the rules of a transformer block, whose names on our side differ by tower. timm joins query, key and
    value."""
    for number in ("1", "2"):
        yield from _pairs(f"{theirs}norm{number}", ours + norm.format(number))
        yield from _pairs(f"{theirs}mlp.fc{number}", f"{ours}mlp.fc{number}")
    yield from _pairs(f"{theirs}attn.proj", ours + out)
    for leaf in ("weight", "bias"):
        names = tuple(f"{ours}{qkv.format(name)}.{leaf}" for name in "qkv")
        yield Rule((f"{theirs}attn.qkv.{leaf}",), names, _split_in_three, _join)


def _load_dino_positions(cls: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Adds a zero position for the class token, which has none in timm."""
    return cls, torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)


def _save_dino_positions(cls: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Adds the class token's position to the class token: the two are only ever summed."""
    return cls + positions[:, :1], positions[:, 1:].contiguous()


def _dino_rules(layers: int) -> Iterator[Rule]:
    ours = "vision.dino."
    yield Rule(
        (DINO + "cls_token", DINO + "pos_embed"),
        (ours + "embeddings.cls_token", ours + "embeddings.position_embeddings"),
        _load_dino_positions,
        _save_dino_positions,
    )
    yield Rule((DINO + "reg_token",), (ours + "embeddings.register_tokens",))
    yield from _pairs(DINO + "patch_embed.proj", ours + "embeddings.patch_embeddings.projection")
    yield from _pairs(DINO + "norm", ours + "layernorm")
    for i in range(layers):
        theirs, block = f"{DINO}blocks.{i}.", f"{ours}encoder.layer.{i}."
        yield from _block(theirs, block, "norm{}", "attention.{}_proj", "attention.o_proj")
        for scale in ("1", "2"):
            # timm's `gamma`; OpenVLA renamed it, because transformers used to rewrite keys of that name (spec 1.2).
            yield Rule((f"{theirs}ls{scale}.scale_factor",), (f"{block}layer_scale{scale}.lambda1",))


def _siglip_rules(layers: int) -> Iterator[Rule]:
    ours = "vision.siglip."
    yield Rule(
        (SIGLIP + "pos_embed",),
        (ours + "embeddings.position_embedding.weight",),
        lambda positions: (positions[0],),
        lambda positions: (positions[None],),
    )
    yield from _pairs(SIGLIP + "patch_embed.proj", ours + "embeddings.patch_embedding")
    yield from _pairs(SIGLIP + "norm", ours + "post_layernorm")
    for i in range(layers):
        theirs, block = f"{SIGLIP}blocks.{i}.", f"{ours}encoder.layers.{i}."
        yield from _block(theirs, block, "layer_norm{}", "self_attn.{}_proj", "self_attn.out_proj")


def _llama_rules(layers: int) -> Iterator[Rule]:
    """Yields the rules of the language model: Hugging Face's names with another prefix."""
    names = ["embed_tokens", "norm"]
    for i in range(layers):
        names += [f"layers.{i}.self_attn.{p}_proj" for p in "qkvo"]
        names += [f"layers.{i}.mlp.{p}_proj" for p in ("gate", "up", "down")]
        names += [f"layers.{i}.{norm}" for norm in ("input_layernorm", "post_attention_layernorm")]
    for name in names:
        yield from _pairs(LLAMA + name, "language." + name, ("weight",))
