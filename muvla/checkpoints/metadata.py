"""config.json and memory_meta.json of a released directory, translated into this project's words (spec 2.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from muvla.checkpoints.fields import is_number
from muvla.config import MemoryConfig
from muvla.config.model import SizeConfig
from muvla.config.serialization import from_dict
from muvla.config.sizes import OPENVLA_7B
from muvla.errors import MuvlaError, located
from muvla.models.constants import DEFAULT
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


# Accepted values of these keys, but for the size, which its class checks.
_KEY_VALUES = {
    BUILT_IN_KEY: (True, False),
    IMAGES_KEY: ("stored", "resized", "released"),
    PROPRIO_KEY: (True, False),
    FIRST_IMAGE_KEY: (True, False),
}
MOST_CAMERAS = 16
LAYER = re.compile(r"(?P<stack>.+?\.(?:layers|blocks))\.(?P<number>\d{1,6})\.")
LONGEST_BLOCK = 10**6  # ticks, a bound on tbptt_length


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
        "image_sizes": [size.image_size, size.image_size],
        "text_config": {
            "model_type": "llama",
            "vocab_size": size.vocabulary,
            "hidden_size": size.width,
            "intermediate_size": size.mlp,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads,
            "rms_norm_eps": DEFAULT.norm_eps,
            "rope_theta": DEFAULT.rope_theta,
        },
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


def require_own_keys(path: Path, config: dict[str, Any]) -> None:
    """Raises MuvlaError for a key of this project with a value that has no meaning."""
    for name, accepted in _KEY_VALUES.items():
        value = config.get(name, accepted[0])
        if not any(type(value) is type(other) and value == other for other in accepted):
            expected = f"one of {', '.join(map(repr, accepted))}"
            raise MuvlaError(f"{path}: {name}", got=value, expected=expected, remedy=f"set {name} to one of them")
    cameras = config.get(CAMERAS_KEY, 1)
    if type(cameras) is not int or not 1 <= cameras <= MOST_CAMERAS:
        raise MuvlaError(
            f"{path}: {CAMERAS_KEY}",
            got=cameras,
            expected=f"a whole number from 1 to {MOST_CAMERAS}",
            remedy="set the number of images that a query of this policy holds",
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


def require_stored_size(path: Path, size: SizeConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Requires that a size which config.json states is the size of the stored tensors, before a policy is built.

    Args:
        path: config.json.
        size: the size by config.json.
        shapes: shape of every stored tensor of the weights.

    Raises:
        MuvlaError: a number of layers or a width is another.
    """
    layers: dict[str, int] = {}
    for name in shapes:
        if match := LAYER.match(name):
            layers[match["stack"]] = max(layers.get(match["stack"], 0), int(match["number"]) + 1)
    embeddings = shapes.get("language_model.model.embed_tokens.weight", ())
    dino = shapes.get("vision_backbone.featurizer.blocks.0.mlp.fc1.weight", ())
    siglip = shapes.get("vision_backbone.fused_featurizer.blocks.0.mlp.fc1.weight", ())
    hidden = shapes.get("language_model.model.layers.0.mlp.gate_proj.weight", ())
    for field, stated, stored in (
        ("layers", size.layers, layers.get("language_model.model.layers")),
        ("dino.layers", size.dino.layers, layers.get("vision_backbone.featurizer.blocks")),
        ("siglip.layers", size.siglip.layers, layers.get("vision_backbone.fused_featurizer.blocks")),
        ("vocabulary", size.vocabulary, embeddings[0] if len(embeddings) == 2 else None),
        ("width", size.width, embeddings[1] if len(embeddings) == 2 else None),
        ("mlp", size.mlp, hidden[0] if len(hidden) == 2 else None),
        ("dino.width", size.dino.width, dino[1] if len(dino) == 2 else None),
        ("dino.mlp", size.dino.mlp, dino[0] if len(dino) == 2 else None),
        ("siglip.width", size.siglip.width, siglip[1] if len(siglip) == 2 else None),
        ("siglip.mlp", size.siglip.mlp, siglip[0] if len(siglip) == 2 else None),
    ):
        if stored is not None and stated != stored:
            raise MuvlaError(
                f"{path}: {SIZE_KEY}.{field}",
                got=stated,
                expected=f"{stored}, by the stored tensors",
                remedy=f"set {SIZE_KEY}.{field} to {stored}, or take config.json and weights from one checkpoint",
            )


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
            remedy="fetch memory_module of this checkpoint's step: this file holds something else",
        )
    rows = tensors["initial_memory"].shape[0]
    mode, rule = meta.get("attention_mask_mode", "custom"), meta.get("memory_update")
    m, alpha, K = (meta.get(name) for name in ("num_mem_tokens", "ema_alpha", "tbptt_length"))
    rules: dict[str, tuple[bool, str]] = {
        "num_mem_tokens": (type(m) is int and m == rows, f"{rows}, the rows of memory_module"),
        "memory_update": (rule in ("tbptt", "ema"), "tbptt or ema"),
        "attention_mask_mode": (mode in ("custom", "full"), "custom or full"),
    }
    if rule == "ema":
        rules["ema_alpha"] = (is_number(alpha, 1e-9, 1.0), "a number above 0 and at most 1")
    else:
        rules["tbptt_length"] = (type(K) is int and 1 <= K <= LONGEST_BLOCK, "a whole number of ticks, at least 1")
    for name, (ok, expected) in rules.items():
        if not ok:
            raise MuvlaError(
                f"{path}: {name}", got=meta.get(name), expected=expected, remedy="take both files from one checkpoint"
            )
    guard: Literal["context", "full"] = "full" if mode == "full" else "context"
    if rule == "tbptt":
        return MemoryMeta(MemoryConfig("tokens", rows), K, guard)
    mechanism = MemoryConfig("tokens", rows, alpha=float(alpha))
    return MemoryMeta(mechanism, 1, guard)  # the EMA ignores K (spec 2.5)
