"""A tiny released directory, written by hand from the documented names (spec 1.2, 1.3, 1.7, 2.7).

It imports nothing of muvla on purpose: that the loader reads what the releases write is shown only by names that it
did not produce itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers

# The anatomy: two towers of three blocks, 28 pixels in patches of 14, a language model of two layers.
DINO, SIGLIP, WIDTH, LAYERS, MLP, VOCABULARY = (16, 32), (12, 20), 24, 2, 40, 400
BLOCKS, PATCHES, ACTION, PROPRIO, M = 3, 4, 7, 7, 5


def vla_tensors(draw) -> dict[str, torch.Tensor]:
    tensors = {}

    def linear(name: str, out: int, in_: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = draw(out, in_), draw(out)

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = draw(width), draw(width)

    for name, (width, mlp) in (("featurizer", DINO), ("fused_featurizer", SIGLIP)):
        root = f"vision_backbone.{name}"
        tensors[f"{root}.pos_embed"] = draw(1, PATCHES, width)
        tensors[f"{root}.patch_embed.proj.weight"] = draw(width, 3, 14, 14)
        tensors[f"{root}.patch_embed.proj.bias"] = draw(width)
        norm(f"{root}.norm", width)
        for i in range(BLOCKS):
            block = f"{root}.blocks.{i}"
            norm(f"{block}.norm1", width)
            norm(f"{block}.norm2", width)
            linear(f"{block}.attn.qkv", 3 * width, width)
            linear(f"{block}.attn.proj", width, width)
            linear(f"{block}.mlp.fc1", mlp, width)
            linear(f"{block}.mlp.fc2", width, mlp)
            if name == "featurizer":
                tensors[f"{block}.ls1.scale_factor"] = draw(width)
                tensors[f"{block}.ls2.scale_factor"] = draw(width)
    tensors["vision_backbone.featurizer.cls_token"] = draw(1, 1, DINO[0])
    tensors["vision_backbone.featurizer.reg_token"] = draw(1, 4, DINO[0])
    width, mlp = SIGLIP
    pool = "vision_backbone.fused_featurizer.attn_pool"
    tensors[f"{pool}.latent"] = draw(1, 1, width)
    linear(f"{pool}.q", width, width)
    linear(f"{pool}.kv", 2 * width, width)
    linear(f"{pool}.proj", width, width)
    norm(f"{pool}.norm", width)
    linear(f"{pool}.mlp.fc1", mlp, width)
    linear(f"{pool}.mlp.fc2", width, mlp)

    fused = DINO[0] + SIGLIP[0]
    linear("projector.fc1", 4 * fused, fused)
    linear("projector.fc2", WIDTH, 4 * fused)
    linear("projector.fc3", WIDTH, WIDTH)

    llama = "language_model.model"
    tensors[f"{llama}.embed_tokens.weight"] = draw(VOCABULARY, WIDTH)
    tensors[f"{llama}.norm.weight"] = draw(WIDTH)
    tensors["language_model.lm_head.weight"] = draw(VOCABULARY, WIDTH)
    for i in range(LAYERS):
        layer = f"{llama}.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{layer}.self_attn.{name}.weight"] = draw(WIDTH, WIDTH)
        for name in ("gate_proj", "up_proj"):
            tensors[f"{layer}.mlp.{name}.weight"] = draw(MLP, WIDTH)
        tensors[f"{layer}.mlp.down_proj.weight"] = draw(WIDTH, MLP)
        tensors[f"{layer}.input_layernorm.weight"] = draw(WIDTH)
        tensors[f"{layer}.post_attention_layernorm.weight"] = draw(WIDTH)
    return tensors


def head_tensors(draw, action: int = ACTION, root: str = "model") -> dict[str, torch.Tensor]:
    wide = action * WIDTH
    shapes = {
        "layer_norm1.weight": (wide,), "layer_norm1.bias": (wide,),
        "fc1.weight": (WIDTH, wide), "fc1.bias": (WIDTH,),
        "mlp_resnet_blocks.0.ffn.0.weight": (WIDTH,), "mlp_resnet_blocks.0.ffn.0.bias": (WIDTH,),
        "mlp_resnet_blocks.0.ffn.1.weight": (WIDTH, WIDTH), "mlp_resnet_blocks.0.ffn.1.bias": (WIDTH,),
        "mlp_resnet_blocks.1.ffn.0.weight": (WIDTH,), "mlp_resnet_blocks.1.ffn.0.bias": (WIDTH,),
        "mlp_resnet_blocks.1.ffn.1.weight": (WIDTH, WIDTH), "mlp_resnet_blocks.1.ffn.1.bias": (WIDTH,),
        "layer_norm2.weight": (WIDTH,), "layer_norm2.bias": (WIDTH,),
        "fc2.weight": (action, WIDTH), "fc2.bias": (action,),
    }  # fmt: skip
    return {f"module.{root}.{name}": draw(*shape) for name, shape in shapes.items()}


def noisy_tensors(draw) -> dict[str, torch.Tensor]:
    shapes = {"fc1.weight": (WIDTH, 1), "fc1.bias": (WIDTH,), "fc2.weight": (WIDTH, WIDTH), "fc2.bias": (WIDTH,)}
    return {f"module.{name}": draw(*shape).float() for name, shape in shapes.items()}


def proprio_tensors(draw, proprio: int = PROPRIO) -> dict[str, torch.Tensor]:
    shapes = {"fc1.weight": (WIDTH, proprio), "fc1.bias": (WIDTH,), "fc2.weight": (WIDTH, WIDTH), "fc2.bias": (WIDTH,)}
    return {f"module.{name}": draw(*shape).float() for name, shape in shapes.items()}


def tokenizer() -> Tokenizer:
    """A BPE of Llama's kind: sentences begin with ▁, spaces are ▁, unknown characters are bytes. The merges that it
    would have learned from a corpus are those of the prompt here."""
    text = "In: What action should the robot take to touch the cube of the same color.?\nOut:"
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *sorted(set(text) - set(" \n"))]
    merges = []
    for word in ["▁" + word for word in text.replace("\n", " ").split()] + ["Out"]:
        whole, *rest = word.rstrip(":.?")
        for letter in rest:
            merges += [(whole, letter)] * ((whole, letter) not in merges)
            whole += letter
            pieces += [whole] * (whole not in pieces)
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True, unk_token="<unk>")
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.add_tokens([AddedToken("<PAD>", special=True)])
    return made


def bounds(width: int) -> dict[str, list[float]]:
    return {"q01": [-0.5] * width, "q99": [0.25] * width, "min": [-1.0] * width, "max": [1.0] * width,
            "mean": [0.0] * width, "std": [0.3] * width}  # fmt: skip


def write(
    path: Path,
    kind: str = "muvla",
    step: str = "150000",
    shards: int = 2,
    action: int = ACTION,
    proprio: int = PROPRIO,
    own: dict | None = None,
    head: str = "l1",
    **meta,
) -> Path:
    """`kind` is openvla, oft or muvla; `own` is added to config.json, `meta` changes memory_meta.json."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return (0.2 * torch.randn(*shape, generator=generator)).to(torch.bfloat16)

    path.mkdir(parents=True)
    statistics = {"mikasa_combined": {"action": bounds(action) | {"mask": [True] * action}, "proprio": bounds(proprio),
                                      "num_transitions": 10, "num_trajectories": 2}}  # fmt: skip
    config = {
        "architectures": ["OpenVLAForActionPrediction"],
        "model_type": "openvla",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "llm_backbone_id": "llama2-7b-pure",
        "text_config": {"model_type": "llama", "pad_token_id": 32000, "vocab_size": VOCABULARY},
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "use_fused_vision_backbone": True,
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "norm_stats": statistics,
    }
    (path / "config.json").write_text(json.dumps(config | (own or {})))
    tokenizer().save(str(path / "tokenizer.json"))
    (path / "preprocessor_config.json").write_text('{"image_processor_type": "PrismaticImageProcessor"}')
    (path / "tokenizer.model").write_bytes(b"sentencepiece")
    (path / "modeling_prismatic.py").write_text("raise SystemExit('nobody may run this')")
    tensors = vla_tensors(draw)
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, path / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if kind == "openvla":
        return path
    root = {"l1": "model", "diffusion": "noise_predictor.mlp_resnet"}[head]
    torch.save(head_tensors(draw, action, root), path / f"action_head--{step}_checkpoint.pt")
    if head == "diffusion":
        torch.save(noisy_tensors(draw), path / f"noisy_action_projector--{step}_checkpoint.pt")
    torch.save(proprio_tensors(draw, proprio), path / f"proprio_projector--{step}_checkpoint.pt")
    (path / "dataset_statistics.json").write_text(json.dumps(statistics))
    (path / "lora_adapter").mkdir()
    if kind == "oft":
        return path
    torch.save({"initial_memory": draw(M, WIDTH)}, path / f"memory_module--{step}_checkpoint.pt")
    memory = {"num_mem_tokens": M, "memory_update": "tbptt", "ema_alpha": 0.1, "tbptt_length": 2,
              "attention_mask_mode": "custom"}  # fmt: skip
    (path / "memory_meta.json").write_text(json.dumps({k: v for k, v in (memory | meta).items() if v is not None}))
    return path
