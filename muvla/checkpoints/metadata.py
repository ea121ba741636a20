"""config.json and memory_meta.json of a released directory, in our words (spec 2.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from muvla.config import MemoryConfig
from muvla.config.model import SizeConfig
from muvla.config.serialization import from_dict
from muvla.config.sizes import OPENVLA_7B
from muvla.errors import MuvlaError
from muvla.utils.io import read_json

CONFIG, MEMORY_META = "config.json", "memory_meta.json"
SIZE_OF_BACKBONE = {"dinosiglip-vit-so-224px": OPENVLA_7B}
SIZE_KEY = "muvla_size"  # in our own exports: the whole anatomy, for sizes that no release has
BUILT_IN_KEY = "muvla_built_in_tokenizer"  # in our own exports, whose prompts are the package's
IMAGES_KEY = "muvla_images"  # in our own exports: `ModelConfig.images`
# What a release's files alone do not tell, and the published code is told anew at every run. Written by our exports;
# into the config.json of another release that was trained otherwise, its user writes them.
PROPRIO_KEY = "muvla_proprio"  # false without proprio
CAMERAS_KEY = "muvla_cameras"  # images per query; 2 where it is missing
FIRST_IMAGE_KEY = "muvla_first_image"  # true where the last of them is the episode's first


@dataclass(frozen=True)
class MemoryMeta:
    """memory_meta.json in our words."""

    mechanism: MemoryConfig
    truncation: int  # K
    guard: Literal["context", "full"]


def config_json(size: SizeConfig) -> dict[str, Any]:
    """What a directory of a policy that was built here says about itself, in the released words where there are any."""
    backbone = next((name for name, known in SIZE_OF_BACKBONE.items() if known == size), None)
    return {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "use_fused_vision_backbone": True,
        "vision_backbone_id": backbone or f"muvla-{size.name}",
        "text_config": {"model_type": "llama", "vocab_size": size.vocabulary},
        SIZE_KEY: asdict(size),
        BUILT_IN_KEY: True,
        IMAGES_KEY: "stored",
    }


def require_fused_openvla(path: Path, config: dict[str, Any]) -> None:
    if config.get("model_type") != "openvla" or not config.get("use_fused_vision_backbone"):
        raise MuvlaError(
            f"{path}: model_type",
            got=config.get("model_type"),
            expected="openvla with use_fused_vision_backbone (DINOv2 and SigLIP)",
            remedy="only OpenVLA, OpenVLA-OFT and μVLA directories can be read",
        )


def size_of(path: Path, config: dict[str, Any]) -> SizeConfig:
    if SIZE_KEY in config:
        return from_dict(SizeConfig, config[SIZE_KEY])
    backbone = config.get("vision_backbone_id")
    if backbone not in SIZE_OF_BACKBONE:
        raise MuvlaError(
            f"{path}: vision_backbone_id",
            got=backbone,
            expected=f"one of {', '.join(SIZE_OF_BACKBONE)}",
            remedy="this anatomy is not built; name a size that fits, if one does",
        )
    return SIZE_OF_BACKBONE[backbone]


def read_memory_meta(path: Path, tensors: Mapping[str, Tensor]) -> MemoryMeta:
    """Mask mode `custom` is the guard `context`, and the release's own choice where the field is missing (spec 3.1)."""
    meta = read_json(path)
    if "initial_memory" not in tensors:
        raise MuvlaError(
            str(path.parent),
            got=f"memory_module with {', '.join(tensors) or 'nothing'}",
            expected="initial_memory",
            remedy="check that the file is what its name says",
        )
    rows = len(tensors["initial_memory"])
    rules = {
        "num_mem_tokens": (meta.get("num_mem_tokens") == rows, f"{rows}, the rows of memory_module"),
        "memory_update": (meta.get("memory_update") in ("tbptt", "ema"), "tbptt or ema"),
        "attention_mask_mode": (meta.get("attention_mask_mode", "custom") in ("custom", "full"), "custom or full"),
    }
    tbptt = meta.get("memory_update") == "tbptt"
    needed = "tbptt_length" if tbptt else "ema_alpha"
    rules[needed] = (isinstance(meta.get(needed), int | float), "a number")
    for name, (ok, expected) in rules.items():
        if not ok:
            raise MuvlaError(
                f"{path}: {name}", got=meta.get(name), expected=expected, remedy="take both files from one checkpoint"
            )
    guard = "full" if meta.get("attention_mask_mode") == "full" else "context"
    if tbptt:
        return MemoryMeta(MemoryConfig("tokens", rows), int(meta["tbptt_length"]), guard)
    return MemoryMeta(
        MemoryConfig("tokens", rows, alpha=float(meta["ema_alpha"])), 1, guard
    )  # the EMA ignores K (spec 2.5)
