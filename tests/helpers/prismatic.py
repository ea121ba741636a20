"""Tiny run folders of CogACT, MemoryVLA and CronusVLA, written by hand from the documented names (golden layouts).

It imports nothing of muvla on purpose: only names that the loader did not produce show that it reads the releases.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from helpers.released import ACTION, DINO, LAYERS, MLP, PROPRIO, SIGLIP, VOCABULARY, WIDTH, tokenizer, vla_tensors

HIDDEN, DEPTH, HEADS, CHUNK, PERCEPTION, PAST = 16, 2, 4, 4, 8, 2
MODULES = ("vision_backbone", "projector", "llm_backbone")
RENAMED = (
    ("vision_backbone.featurizer.", "vision_backbone.dino_featurizer."),
    ("vision_backbone.fused_featurizer.", "vision_backbone.siglip_featurizer."),
    ("projector.fc1", "projector.projector.0"),
    ("projector.fc2", "projector.projector.2"),
    ("projector.fc3", "projector.projector.4"),
    ("language_model", "llm_backbone.llm"),
    ("scale_factor", "gamma"),
)


def weights(draw) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, tensor in vla_tensors(draw).items():
        for theirs, here in RENAMED:
            name = name.replace(theirs, here)
        tensors[name] = tensor
    return tensors


def expert(draw, family: str) -> dict[str, torch.Tensor]:
    tensors = {}

    def linear(name: str, out: int, in_: int) -> None:
        tensors[f"action_model.net.{name}.weight"], tensors[f"action_model.net.{name}.bias"] = draw(out, in_), draw(out)

    tensors["action_model.net.positional_embedding"] = draw(1 + CHUNK, HIDDEN)
    linear("x_embedder.linear", HIDDEN, ACTION)
    linear("t_embedder.mlp.0", HIDDEN, 256)
    linear("t_embedder.mlp.2", HIDDEN, HIDDEN)
    linear("final_layer.linear", ACTION, HIDDEN)
    windowed = family == "cronusvla"
    tensors["action_model.net.z_embedder.uncondition"] = draw(PAST + 1 if windowed else 1, WIDTH)
    if windowed:
        tensors["action_model.net.condition_positional_embedding"] = draw(PAST + 6, HIDDEN)
        linear("z_embedder.linear_0", HIDDEN, WIDTH)
        linear("z_embedder.extend_net.0", 6 * (WIDTH // 6), WIDTH)
        linear("z_embedder.linear", HIDDEN, WIDTH // 6)
    else:
        linear("z_embedder.linear", HIDDEN, WIDTH)
    if family == "cogact":
        linear("history_embedder.linear", HIDDEN, ACTION)
    if family == "memoryvla":
        linear("per_token_embedder.linear", HIDDEN, PERCEPTION)
    for i in range(DEPTH):
        block = f"blocks.{i}"
        linear(f"{block}.attn.qkv", 3 * HIDDEN, HIDDEN)
        linear(f"{block}.attn.proj", HIDDEN, HIDDEN)
        linear(f"{block}.mlp.fc1", 4 * HIDDEN, HIDDEN)
        linear(f"{block}.mlp.fc2", HIDDEN, 4 * HIDDEN)
        if windowed:
            linear(f"{block}.cross_attn.q", HIDDEN, HIDDEN)
            linear(f"{block}.cross_attn.kv", 2 * HIDDEN, HIDDEN)
            linear(f"{block}.cross_attn.proj", HIDDEN, HIDDEN)
        if family == "memoryvla":
            net = f"action_model.net.{block}"
            tensors[f"{net}.per_attn.in_proj_weight"] = draw(3 * HIDDEN, HIDDEN)
            tensors[f"{net}.per_attn.in_proj_bias"] = draw(3 * HIDDEN)
            linear(f"{block}.per_attn.out_proj", HIDDEN, HIDDEN)
            tensors[f"{net}.norm3.weight"], tensors[f"{net}.norm3.bias"] = draw(HIDDEN), draw(HIDDEN)
    return tensors


def bank(draw) -> dict[str, torch.Tensor]:
    features = DINO[0] + SIGLIP[0]
    wide, squeezed = 2 * PERCEPTION, 1
    tensors = {
        "per_compr.reduce.weight": draw(wide, features, 1, 1),
        "per_compr.excite.1.weight": draw(squeezed, wide, 1, 1),
        "per_compr.excite.1.bias": draw(squeezed),
        "per_compr.excite.3.weight": draw(wide, squeezed, 1, 1),
        "per_compr.excite.3.bias": draw(wide),
        "per_compr.expand.weight": draw(PERCEPTION, wide, 1, 1),
    }

    def linear(name: str, out: int, in_: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = draw(out, in_), draw(out)

    for module, width in (("cog_mem_bank", WIDTH), ("per_mem_bank", PERCEPTION)):
        for i in range(2):
            block = f"{module}.retrieval_blocks.{i}"
            for name in ("q_proj", "k_proj", "v_proj"):
                linear(f"{block}.{name}", width, width)
            linear(f"{block}.ffn.0", 4 * width, width)
            linear(f"{block}.ffn.2", width, 4 * width)
            for norm in ("attn_norm", "ffn_norm"):
                tensors[f"{block}.{norm}.weight"], tensors[f"{block}.{norm}.bias"] = draw(width), draw(width)
        linear(f"{module}.gate_fusion_blocks.proj", width, 2 * width)
        linear(f"{module}.timestep_encoder.mlp.0", width, width // 4)
        linear(f"{module}.timestep_encoder.mlp.2", width, width)
    return tensors


def tensors_of(family: str, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator) * 0.3  # noqa: E731
    memory = bank(draw) if family == "memoryvla" else {}
    return memory | ({} if family == "prismatic" else expert(draw, family)) | weights(draw)


def config_of(family: str) -> dict:
    """The released fields, and this project's keys for sizes that no release has."""
    towers = [{"width": width, "layers": 3, "heads": 2, "mlp": mlp} for width, mlp in (DINO, SIGLIP)]
    config = {
        "vla": {"base_vlm": "prism-tiny", "learning_rate": 2e-05},
        "run_id": "tiny",
        "action_model_type": "DiT-L",
        "action_dim": ACTION,
        "future_action_window_size": CHUNK - 1,
        "use_ema": False,
        "muvla_cameras": 2,
        "muvla_size": {
            **{"name": "tiny-release", "image_size": 28, "patch": 14, "dino": towers[0], "siglip": towers[1]},
            **{"width": WIDTH, "layers": LAYERS, "heads": 4, "mlp": MLP, "vocabulary": VOCABULARY},
        },
        "muvla_expert": {"layers": DEPTH, "width": HIDDEN, "heads": HEADS},
    }
    if family == "memoryvla":
        config |= {"mem_length": 3, "per_token_size": PERCEPTION, "retrieval_layers": 2, "use_timestep_pe": True}
        config |= {"fusion_type": "gate", "consolidate_type": "tome", "update_fused": False, "group_size": 16}
    if family == "cronusvla":
        config |= {"past_action_window_size": PAST}
    return config


def write(path: Path, family: str, config_name: str = "config.json", seed: int = 0) -> Path:
    """Write a run folder and return the path.

    Args:
        path: the folder.
        family: cogact, memoryvla, cronusvla, or prismatic without an expert.
        config_name: config.json or config.yaml.
        seed: of the weights.
    """
    (path / "checkpoints").mkdir(parents=True)
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for full, tensor in tensors_of(family, seed).items():
        module, name = full.split(".", 1)
        modules.setdefault(module, {})[name] = tensor.float()
    torch.save({"model": modules}, path / "checkpoints" / "step-020000-epoch-03-loss=0.0123.pt")
    (path / config_name).write_text(json.dumps(config_of(family)))
    action = {"q01": [-1.0] * ACTION, "q99": [1.0] * ACTION, "mask": [True] * (ACTION - 1) + [False]}
    proprio = {"q01": [-1.0] * PROPRIO, "q99": [1.0] * PROPRIO}
    statistics = {"libero": {"action": action, "proprio": proprio, "num_trajectories": 5}}
    (path / "dataset_statistics.json").write_text(json.dumps(statistics))
    tokenizer().save(str(path / "tokenizer.json"))
    return path
