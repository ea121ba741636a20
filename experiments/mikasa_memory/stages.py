"""The recipe that all stages of mikasa_memory share, and what each stage changes."""

from __future__ import annotations

import dataclasses
from typing import Any

from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    DatasetConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TowerConfig,
)
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol

M = 4  # memory width
IMAGE = 64  # pixels; the simulator's cameras give 128
SEEDS = (0, 1, 2, 3, 4)
HELD_OUT_SEED = 2_000_000_000  # first seed of the held-out demonstrations
STARTS = "./runs/.starts/mikasa_memory"  # README.md: the runs of a stage, linked by stage, variant and training seed

FULL = TaskConfig("RememberColor3-VLA-v0")
SHORT = dataclasses.replace(FULL, cue=(1, 2), delay=(1, 2))

_TOWER = TowerConfig(width=64, layers=3, heads=2, mlp=128)
SIZE = dataclasses.replace(get_size("tiny", image_size=IMAGE), name="tiny-towers-64x3", dino=_TOWER, siglip=_TOWER)

_QUICK = get_protocol("mikasa-remember-color3-quick-rh@1")
SHORT_PROTOCOL = replace(_QUICK, {"name": "mikasa-remember-color3-short-rh", "task": SHORT, "episodes": 30})
FULL_PROTOCOL = replace(_QUICK, {"name": "mikasa-remember-color3-memory-rh", "episodes": 100})


def demonstrations(task: TaskConfig, episodes: int = 1500) -> DatasetConfig:
    return DatasetConfig(task, episodes=episodes, image_size=IMAGE)


def held_out(task: TaskConfig) -> DatasetConfig:
    """Return 100 demonstrations that no training plays, for the error at the first decision step."""
    return dataclasses.replace(demonstrations(task, episodes=100), seed=HELD_OUT_SEED)


def make_base(**changes: Any) -> Cell:
    """Return the cell of the first stage: short phases, two steps of the decision, no memory."""
    base = Cell(
        model=ModelConfig(size=SIZE, chunk=1, guard="context", reserve=M, proprio=False),
        data=DataConfig(dataset=demonstrations(SHORT), cameras=("wrist",), decision_steps=2, held_out=held_out(SHORT)),
        memory=MemoryConfig(kind="none"),
        budget=BudgetConfig(slots=32, window=8, updates=4000),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    return replace(base, changes)


def get_start(stage: str, variant: str) -> str:
    """Return the place of a finished run; `{seed}` stands for the training seed."""
    return f"{STARTS}/{stage}-{variant}-{{seed}}"
