"""The published forward pass of a tiny release, written again from its files (spec 1.2, 3.2)."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import gelu, layer_norm, linear, relu, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaModel

from helpers import released


def tower(tensors, root, pixels, heads, registers, language=None):
    """A timm vision transformer by its published names, to the end of the last block but one; with FiLM by the average
    embedding `language`."""
    get = {name.removeprefix(root): t.float() for name, t in tensors.items() if name.startswith(root)}
    x = torch.nn.functional.conv2d(pixels, get["patch_embed.proj.weight"], get["patch_embed.proj.bias"], stride=14)
    x = x.flatten(2).transpose(1, 2) + get["pos_embed"]
    if registers:
        x = torch.cat([get["cls_token"].expand(len(x), -1, -1), get["reg_token"].expand(len(x), -1, -1), x], dim=1)
    for i in range(released.BLOCKS - 1):
        block = {n.removeprefix(f"blocks.{i}."): t for n, t in get.items() if n.startswith(f"blocks.{i}.")}

        def norm(x, name, block=block):
            return layer_norm(x, x.shape[-1:], block[f"{name}.weight"], block[f"{name}.bias"], eps=1e-6)

        qkv = linear(norm(x, "norm1"), block["attn.qkv.weight"], block["attn.qkv.bias"])
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        attended = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(attended, block["attn.proj.weight"], block["attn.proj.bias"]) * block.get("ls1.scale_factor", 1)
        if language is not None:
            gamma, beta = (linear(language, block[f"{n}.weight"], block[f"{n}.bias"]) for n in ("scale", "shift"))
            x = x * (1 + gamma[:, None]) + beta[:, None]
        hidden = gelu(linear(norm(x, "norm2"), block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + linear(hidden, block["mlp.fc2.weight"], block["mlp.fc2.bias"]) * block.get("ls2.scale_factor", 1)
    return x[:, 5:] if registers else x


def without_wrappers(tensors):
    """The vision backbone of a training with FiLM, its blocks out of FiLM's, its layers out of peft's: W + α/r·B·A with
    α = 16 and r = 32, the patch embedding's A a convolution and its B one of 1×1."""
    plain = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        layer, tensor = name.removesuffix(".base_layer.weight"), tensor.float()
        if layer != name:
            a, b = (tensors[f"{layer}.lora_{x}.default.weight"] for x in "AB")
            equation = "orxy,rihw->oihw" if a.ndim == 4 else "or,ri->oi"
            tensor = tensor + 0.5 * torch.einsum(equation, b, a)
        plain[name.replace(".base_layer.", ".").replace(".block.", ".")] = tensor
    return plain


def published_forward(path, images, proprio, prompt, noisy=None):
    """(actions, memory) of one frame; `noisy` (actions, time) is what a diffusion head sees. Without a memory module
    nothing is guarded (spec 3.2)."""
    weights = {}
    for file in path.glob("*.safetensors"):
        weights |= load_file(file)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids + [tokenizer.token_to_id("▁")]
    table = weights["language_model.model.embed_tokens.weight"].float()
    bos, words, stop = table[[1]][None], table[ids][None], table[[2]][None]
    language = None
    for file in path.glob("vision_backbone--*"):
        weights |= without_wrappers(torch.load(file))
        language = torch.cat([bos, words, stop], dim=1).mean(dim=1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    cameras = []
    for camera in range(2):
        pixels = images[:, camera].float() / 255
        normal = (pixels - mean[:, None, None]) / std[:, None, None]
        dino = tower(weights, "vision_backbone.featurizer.", normal, 2, True, language)
        siglip = tower(weights, "vision_backbone.fused_featurizer.", (pixels - 0.5) / 0.5, 2, False, language)
        x = torch.cat([dino, siglip], dim=-1)
        for layer in ("fc1", "fc2", "fc3"):
            x = linear(x, weights[f"projector.{layer}.weight"].float(), weights[f"projector.{layer}.bias"].float())
            x = gelu(x) if layer != "fc3" else x
        cameras.append(x)
    state = torch.load(path / "proprio_projector--150000_checkpoint.pt")
    p = gelu(linear(proprio, state["module.fc1.weight"], state["module.fc1.bias"]))
    p = linear(p, state["module.fc2.weight"], state["module.fc2.bias"])[:, None]
    module = path / "memory_module--150000_checkpoint.pt"
    memory = torch.load(module)["initial_memory"].float()[None] if module.exists() else torch.zeros(1, 0, 24)
    slots, told = torch.zeros(1, 56, 24), []
    if noisy is not None:
        state = torch.load(path / "noisy_action_projector--150000_checkpoint.pt")
        slots = gelu(linear(noisy[0].reshape(1, 56, 1), state["module.fc1.weight"], state["module.fc1.bias"]))
        slots = linear(slots, state["module.fc2.weight"], state["module.fc2.bias"])
        angles = noisy[1] * 10_000 ** (-torch.arange(12) / 11)
        told = [torch.cat([angles.sin(), angles.cos()])[None, None]]
    context = torch.cat([bos, *cameras, p, memory, *told, words], dim=1)
    sequence = torch.cat([context, slots, stop], dim=1)
    allowed = torch.ones(1, 1, sequence.shape[1], sequence.shape[1], dtype=torch.bool)
    if module.exists():
        allowed[:, :, : context.shape[1], context.shape[1] :] = False
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=400,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            attn_implementation="sdpa",
            use_cache=False,
        )
    )
    llama.load_state_dict(
        {n.removeprefix("language_model.model."): t.float() for n, t in weights.items() if "language_model.model." in n}
    )
    hidden = llama(inputs_embeds=sequence, attention_mask=allowed).last_hidden_state
    head = {
        n.removeprefix("module.").removeprefix("model.").removeprefix("noise_predictor.mlp_resnet."): t.float()
        for n, t in torch.load(path / "action_head--150000_checkpoint.pt").items()
    }
    x = hidden[:, context.shape[1] - 1 : context.shape[1] + 55].reshape(1, 8, 7 * 24)
    x = layer_norm(x, x.shape[-1:], head["layer_norm1.weight"], head["layer_norm1.bias"])
    x = relu(linear(x, head["fc1.weight"], head["fc1.bias"]))
    for i in range(2):
        block = f"mlp_resnet_blocks.{i}.ffn"
        y = layer_norm(x, x.shape[-1:], head[f"{block}.0.weight"], head[f"{block}.0.bias"])
        x = x + relu(linear(y, head[f"{block}.1.weight"], head[f"{block}.1.bias"]))
    x = layer_norm(x, x.shape[-1:], head["layer_norm2.weight"], head["layer_norm2.bias"])
    start = 1 + 2 * released.PATCHES + 1
    return linear(x, head["fc2.weight"], head["fc2.bias"]), hidden[:, start : start + memory.shape[1]]


def everything_in(path) -> dict:
    content = {}
    for file in path.glob("*.safetensors"):
        content |= load_file(file)
    for file in path.glob("*.pt"):
        content |= {f"{file.name}/{n}": t for n, t in torch.load(file).items()}
    for file in path.glob("*.json"):
        if "index" not in file.name:
            content[file.name] = json.loads(file.read_text())
    for pattern in ("tokenizer*", "*.py", "preprocessor*"):  # for upstream's code: the bytes themselves
        content |= {file.name: file.read_bytes() for file in path.glob(pattern)}
    return content
