"""The size of the tiny release in `released`, as muvla names its fields."""

import dataclasses

from muvla.config.model import SizeConfig, TowerConfig

SIZE = SizeConfig(
    name="fixture",
    image_size=28,
    patch=14,
    dino=TowerConfig(width=16, layers=3, heads=2, mlp=32),
    siglip=TowerConfig(width=12, layers=3, heads=2, mlp=20),
    width=24,
    layers=2,
    heads=4,
    mlp=40,
    vocabulary=400,
)


ANATOMY = {"muvla_size": dataclasses.asdict(SIZE)}
