"""Write tests/golden/towers.safetensors: tiny timm towers with random weights, an image, and timm's features.

timm is no dependency of muvla, because timm needs a torchvision release that matches torch exactly. Run the script in a
separate virtual environment:  pip install timm torchvision safetensors && python scripts/golden_towers.py

The towers follow OpenVLA: features of the last block but one, prefix tokens dropped, DINOv2 with four registers, SigLIP
with its pooling head, LayerScale's `gamma` written as `scale_factor` (spec 1.2).
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

OUT = Path(__file__).parent.parent / "tests" / "golden" / "towers.safetensors"
COMMON = {"img_size": 28, "patch_size": 14, "num_classes": 0, "depth": 3}
DINO = {"embed_dim": 16, "num_heads": 2, "mlp_ratio": 2, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
SIGLIP = {"embed_dim": 12, "num_heads": 2, "mlp_ratio": 20 / 12, "class_token": False, "global_pool": "map"}


def tower(**arguments) -> VisionTransformer:
    """Build a tower with random numbers in every parameter.

    timm initializes biases to zero, and a zero bias would hide a bias that muvla forgets.
    """
    model = VisionTransformer(**COMMON, **arguments).eval()
    for name, parameter in model.named_parameters():
        scale = 1.0 if name.endswith(("gamma", "norm1.weight", "norm2.weight", "norm.weight")) else 0.2
        torch.nn.init.normal_(parameter, std=scale)
    return model


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    tensors = {"pixels": torch.randn(2, 3, 28, 28)}
    for prefix, arguments in (("featurizer.", DINO), ("fused_featurizer.", SIGLIP)):
        model = tower(**arguments)
        features = model.get_intermediate_layers(tensors["pixels"], n={COMMON["depth"] - 2})[0]
        tensors[prefix + "FEATURES"] = features.contiguous()
        for name, value in model.state_dict().items():
            tensors[prefix + name.replace("gamma", "scale_factor")] = value.contiguous()
    save_file(tensors, OUT, metadata={"timm": timm.__version__, "torch": torch.__version__})
    print(f"{OUT}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
