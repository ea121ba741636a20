"""config.json and memory_meta.json of a released directory, translated into this project's words (spec 2.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from muvla.config import MemoryConfig
from muvla.config.model import SizeConfig
from muvla.config.serialization import from_dict
from muvla.config.sizes import OPENVLA_7B
from muvla.errors import MuvlaError, located
from muvla.utils.foreign import read_object

CONFIG, MEMORY_META = "config.json", "memory_meta.json"
SIZE_OF_BACKBONE = {"dinosiglip-vit-so-224px": OPENVLA_7B}
# Exports of this project write these keys.
SIZE_KEY = "muvla_size"  # the whole SizeConfig, for sizes that no release has
BUILT_IN_KEY = "muvla_built_in_tokenizer"  # the prompts are the package's
IMAGES_KEY = "muvla_images"  # `ModelConfig.images`
# These keys hold what a release's files omit and the published code takes as flags of every run. Exports of this
# project write them. Users write them into the config.json of another release that was trained with other flags.
PROPRIO_KEY = "muvla_proprio"  # false without proprio
CAMERAS_KEY = "muvla_cameras"  # images per query; 2 where it is missing
FIRST_IMAGE_KEY = "muvla_first_image"  # true where the last image is the episode's first


@dataclass(frozen=True)
class MemoryMeta:
    """memory_meta.json in this project's words."""

    mechanism: MemoryConfig
    truncation: int  # K
    guard: Literal["context", "full"]


def make_config_json(size: SizeConfig) -> dict[str, Any]:
    """Returns config.json of a policy that was built here, in the released keys where these exist."""
    backbone = next((name for name, released_size in SIZE_OF_BACKBONE.items() if released_size == size), None)
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
    """Raises MuvlaError for a config.json of another model family."""
    if config.get("model_type") != "openvla" or not config.get("use_fused_vision_backbone"):
        raise MuvlaError(
            f"{path}: model_type",
            got=config.get("model_type"),
            expected="openvla with use_fused_vision_backbone (DINOv2 and SigLIP)",
            remedy="choose a directory of OpenVLA, OpenVLA-OFT or μVLA; others cannot be read",
        )


def get_size(path: Path, config: dict[str, Any]) -> SizeConfig:
    """Returns the model's size by config.json. Raises MuvlaError for an unknown vision backbone."""
    if SIZE_KEY in config:
        with located(path):
            return from_dict(SizeConfig, config[SIZE_KEY], f"{SIZE_KEY}.")
    backbone = config.get("vision_backbone_id")
    if backbone not in SIZE_OF_BACKBONE:
        raise MuvlaError(
            f"{path}: vision_backbone_id",
            got=backbone,
            expected=f"one of {', '.join(SIZE_OF_BACKBONE)}",
            remedy="pass --size if a size of this project fits; other backbones are not implemented",
        )
    return SIZE_OF_BACKBONE[backbone]


def read_memory_meta(path: Path, tensors: Mapping[str, Tensor]) -> MemoryMeta:
    """Reads memory_meta.json. Mask mode `custom`, the default, is the guard `context` (spec 3.1).

    Raises MuvlaError if the file contradicts the memory module's tensors.
    """
    meta = read_object(path)
    if "initial_memory" not in tensors:
        raise MuvlaError(
            str(path.parent),
            got=f"memory_module with {', '.join(tensors) or 'nothing'}",
            expected="initial_memory",
            remedy="download memory_module again; this file holds something else",
        )
    rows = len(tensors["initial_memory"])
    rules = {
        "num_mem_tokens": (meta.get("num_mem_tokens") == rows, f"{rows}, the rows of memory_module"),
        "memory_update": (meta.get("memory_update") in ("tbptt", "ema"), "tbptt or ema"),
        "attention_mask_mode": (meta.get("attention_mask_mode", "custom") in ("custom", "full"), "custom or full"),
    }
    tbptt = meta.get("memory_update") == "tbptt"
    needed = "tbptt_length" if tbptt else "ema_alpha"
    value = meta.get(needed)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else 0
    if tbptt:
        rules[needed] = (number >= 1 and number == int(number), "a whole number of at least 1")
    else:
        rules[needed] = (0 < number <= 1, "a number in (0, 1]")
    for name, (ok, expected) in rules.items():
        if not ok:
            raise MuvlaError(
                f"{path}: {name}", got=meta.get(name), expected=expected, remedy="take both files from one checkpoint"
            )
    guard = "full" if meta.get("attention_mask_mode") == "full" else "context"
    if tbptt:
        return MemoryMeta(MemoryConfig("tokens", rows), int(meta["tbptt_length"]), guard)
    mechanism = MemoryConfig("tokens", rows, alpha=float(meta["ema_alpha"]))
    return MemoryMeta(mechanism, 1, guard)  # the EMA ignores K (spec 2.5)
