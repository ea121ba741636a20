"""The tensors of the published checkpoints and ours: their names, their shapes, and the way in both directions.

OpenVLA stores two timm towers, a projector and a Llama; OFT adds an action head and a proprio projector, with FiLM the
vision backbone once more, and μVLA a memory module, in files of their own (spec 1.2, 1.3, 1.7, 1.10, 2.7). A rule takes
a few published tensors to a few of ours and back; what no rule names, the policy does not have: it is carried along
unchanged (`carried_shapes`).

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
    """Some published tensors and those of ours that hold the same numbers; full names on both sides."""

    published: tuple[str, ...]
    ours: tuple[str, ...]
    load: Callable[..., tuple[Tensor, ...]] = lambda *tensors: tensors
    save: Callable[..., tuple[Tensor, ...]] = lambda *tensors: tensors

    def published_shapes(self, ours: dict[str, Tensor]) -> Shapes:
        """By carrying empty tensors of our shapes over; nothing is computed."""
        empty = [torch.empty(ours[name].shape, device="meta") for name in self.ours]
        return {n: tuple(t.shape) for n, t in zip(self.published, self.save(*empty), strict=True)}


def tower_rules(size: SizeConfig) -> list[Rule]:
    return [*_dino_rules(size.dino.layers), *_siglip_rules(size.siglip.layers)]


def vla_rules(size: SizeConfig, towers: bool = True) -> list[Rule]:
    """Of the merged weights: both towers, unless they are read elsewhere, the projector and the language model."""
    return [
        *(tower_rules(size) if towers else ()),
        *_pairs("projector.fc1", "vision.projector.0"),
        *_pairs("projector.fc2", "vision.projector.2"),
        *_pairs("projector.fc3", "vision.projector.4"),
        *_llama_rules(size.layers),
    ]


HEADS = {"l1": "model.", "diffusion": "noise_predictor.mlp_resnet."}  # what the names of each begin with


def head_rules(head: str) -> list[Rule]:
    """Of the action head, `l1` or `diffusion` (spec 1.7, 1.11)."""
    renamed = {"layer_norm1": "norm_in", "fc1": "fc_in", "layer_norm2": "norm_out", "fc2": "fc_out"}
    for i in range(2):
        renamed |= {
            f"mlp_resnet_blocks.{i}.ffn.0": f"blocks.{i}.norm",
            f"mlp_resnet_blocks.{i}.ffn.1": f"blocks.{i}.fc",
        }
    return [rule for theirs, own in renamed.items() for rule in _pairs(f"{HEADS[head]}{theirs}", f"head.{own}")]


def proprio_rules() -> list[Rule]:
    return [*_pairs("fc1", "proprio.fc1"), *_pairs("fc2", "proprio.fc2")]


def noisy_rules() -> list[Rule]:
    """Of what embeds the noisy actions of a diffusion head (spec 1.11)."""
    return [*_pairs("fc1", "noisy.fc1"), *_pairs("fc2", "noisy.fc2")]


def memory_rules() -> list[Rule]:
    return [Rule(("initial_memory",), ("memory.initial",))]


def vision_rules(size: SizeConfig) -> list[Rule]:
    """Of the vision backbone with FiLM: its layers, and both towers, whose blocks stand inside its own (spec 1.10)."""
    rules = [
        replace(rule, published=tuple(re.sub(r"(blocks\.\d+\.)", r"\1block.", name) for name in rule.published))
        for rule in tower_rules(size)
    ]
    for theirs, own, tower in ((DINO, "film.dino", size.dino), (SIGLIP, "film.siglip", size.siglip)):
        for i in range(tower.layers - 1):
            for layer in ("scale", "shift"):
                rules += _pairs(f"{theirs}blocks.{i}.{layer}", f"{own}.{i}.{layer}")
    return rules


def carried_shapes(size: SizeConfig) -> Shapes:
    """What is published and never read by the policy: the language model's output layer, and SigLIP's pooling."""
    return {"language_model.lm_head.weight": (size.vocabulary, size.width)} | _pooling_shapes(size)


def carried_vision_shapes(size: SizeConfig) -> Shapes:
    """Of the vision backbone with FiLM: SigLIP's pooling, and FiLM in the last blocks, whose output nothing reads."""
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
    """Of our names, those without a published counterpart: transformers' mask token, which only pretraining uses."""
    return {name for name in names if name.endswith("embeddings.mask_token")}


def _pairs(theirs: str, ours: str, leaves: tuple[str, ...] = ("weight", "bias")) -> Iterator[Rule]:
    for leaf in leaves:
        yield Rule((f"{theirs}.{leaf}",), (f"{ours}.{leaf}",))


def _split_in_three(joined: Tensor) -> tuple[Tensor, ...]:
    return joined.chunk(3)


def _joined(*parts: Tensor) -> tuple[Tensor]:
    return (torch.cat(parts),)


def _block(theirs: str, own: str, norm: str, qkv: str, out: str) -> Iterator[Rule]:
    """A transformer block; our names of its parts differ by tower. timm keeps query, key and value in one matrix."""
    for number in ("1", "2"):
        yield from _pairs(f"{theirs}norm{number}", own + norm.format(number))
        yield from _pairs(f"{theirs}mlp.fc{number}", f"{own}mlp.fc{number}")
    yield from _pairs(f"{theirs}attn.proj", own + out)
    for leaf in ("weight", "bias"):
        names = tuple(f"{own}{qkv.format(name)}.{leaf}" for name in "qkv")
        yield Rule((f"{theirs}attn.qkv.{leaf}",), names, _split_in_three, _joined)


def _load_dino_positions(cls: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """timm gives no position to the class token; ours has one, which is zero."""
    return cls, torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)


def _save_dino_positions(cls: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The class token's position goes into the class token: the two are only ever added."""
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
        theirs, own = f"{DINO}blocks.{i}.", f"{ours}encoder.layer.{i}."
        yield from _block(theirs, own, "norm{}", "attention.{}_proj", "attention.o_proj")
        for scale in ("1", "2"):
            # timm's `gamma`; OpenVLA renamed it, because transformers used to rewrite keys of that name (spec 1.2).
            yield Rule((f"{theirs}ls{scale}.scale_factor",), (f"{own}layer_scale{scale}.lambda1",))


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
        theirs, own = f"{SIGLIP}blocks.{i}.", f"{ours}encoder.layers.{i}."
        yield from _block(theirs, own, "layer_norm{}", "self_attn.{}_proj", "self_attn.out_proj")


def _llama_rules(layers: int) -> Iterator[Rule]:
    """Hugging Face's own names below another prefix."""
    names = ["embed_tokens", "norm"]
    for i in range(layers):
        names += [f"layers.{i}.self_attn.{p}_proj" for p in "qkvo"]
        names += [f"layers.{i}.mlp.{p}_proj" for p in ("gate", "up", "down")]
        names += [f"layers.{i}.{norm}" for norm in ("input_layernorm", "post_attention_layernorm")]
    for name in names:
        yield from _pairs(LLAMA + name, "language." + name, ("weight",))
