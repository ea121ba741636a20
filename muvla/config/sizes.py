"""Model sizes by name."""

from __future__ import annotations

import dataclasses

from muvla.config.model import SizeConfig, TowerConfig
from muvla.errors import MuvlaError

# CPU minutes. Two 32-pixel cameras give 2·4 vision tokens. The towers' last block is never used (spec 1.2), so of their
# two layers one counts.
TINY = SizeConfig(
    name="tiny",
    image_size=32,
    patch=16,
    dino=TowerConfig(width=48, layers=2, heads=2, mlp=96),
    siglip=TowerConfig(width=48, layers=2, heads=2, mlp=96),
    width=96,
    layers=2,
    heads=4,
    mlp=256,
    vocabulary=512,
)

# About 110 million parameters, for one GPU and some hours; reads MIKASA's 128-pixel cameras as they are, 64 vision
# tokens each. The towers have the shape of ViT-S.
SMALL = SizeConfig(
    name="small",
    image_size=128,
    patch=16,
    dino=TowerConfig(width=384, layers=12, heads=6, mlp=1536),
    siglip=TowerConfig(width=384, layers=12, heads=6, mlp=1536),
    width=640,
    layers=12,
    heads=10,
    mlp=1728,
    vocabulary=512,
)

# The published anatomy: DINOv2 ViT-L/14 with registers, SigLIP SO400M/14 and Llama-2 7B with its vocabulary padded to a
# multiple of 64 (spec 1.2, 1.3).
OPENVLA_7B = SizeConfig(
    name="openvla-7b",
    image_size=224,
    patch=14,
    dino=TowerConfig(width=1024, layers=24, heads=16, mlp=4096),
    siglip=TowerConfig(width=1152, layers=27, heads=16, mlp=4304),
    width=4096,
    layers=32,
    heads=32,
    mlp=11008,
    vocabulary=32064,
)

# The language model and towers of MemoryVLA, CogACT and CronusVLA, which are OpenVLA's; `muvla.config.expert` has the
# sizes of their experts.
MEMORYVLA_7B = dataclasses.replace(OPENVLA_7B, name="memoryvla-7b")

SIZES = {size.name: size for size in (TINY, SMALL, OPENVLA_7B, MEMORYVLA_7B)}


def get_size(name: str, **changes: int) -> SizeConfig:
    """A preset by name, with top-level numbers changed: `get_size("tiny", image_size=64)`."""
    if name not in SIZES:
        raise MuvlaError("model.size", got=name, expected=f"one of {', '.join(SIZES)}", remedy="choose a preset")
    return dataclasses.replace(SIZES[name], **changes)
