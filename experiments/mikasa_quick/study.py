"""The main job's path on a real simulator: RememberColor3 of MIKASA-Robo, one training seed, few episodes."""

from __future__ import annotations

from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    DatasetConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    no_memory,
    tbptt,
)
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

M = 4
IMAGE = 64  # pixels; the simulator's cameras give 128

base = Cell(
    model=ModelConfig(size=get_size("tiny", image_size=IMAGE), chunk=4, reserve=M),
    data=DataConfig(DatasetConfig(task=TaskConfig("RememberColor3-VLA-v0"), episodes=250, image_size=IMAGE)),
    memory=MemoryConfig(kind="tokens", m=M),
    truncation=8,
    budget=BudgetConfig(slots=8, window=8, updates=3000),
    optimizer=OptimizerConfig(lr=5e-4),
)

study = Study(
    name="mikasa_quick",
    title="Does the path from demonstrations to tables work on RememberColor3 of MIKASA-Robo?",
    base=base,
    variants={"none": no_memory(), "K=8": tbptt(8, M)},
    factors=("memory.kind", "memory.m"),
    seeds=(0,),
    protocols=(get_protocol("mikasa-remember-color3-quick-rh@1"),),
    interventions=("noise_unit", "noise_matched", "zero", "freeze_first"),
    notes="One training seed and 30 episodes show that the path from demonstrations to tables works. They are no "
    "evidence about memory.",
)
