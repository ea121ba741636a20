"""Sizes: the same classes, other numbers."""

from __future__ import annotations

import dataclasses

from muvla.config import SizeConfig, TowerConfig
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

SIZES = {size.name: size for size in (TINY,)}


def size(name: str, **changes: int) -> SizeConfig:
    """A preset by name, with top-level numbers changed: `size("tiny", image_size=64)`."""
    if name not in SIZES:
        raise MuvlaError("model.size", got=name, expected=f"one of {', '.join(SIZES)}", remedy="choose a preset")
    return dataclasses.replace(SIZES[name], **changes)
