"""OpenVLA-7B fine-tuned with LoRA and memory on MIKASA-Robo's RememberColor3: K and the labels, at matched budgets.

The study needs a network, a GPU of 80 GB and days of GPU time. It was never run.
"""

from __future__ import annotations

from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    DatasetConfig,
    LoraConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    StartConfig,
    TaskConfig,
    dummy,
    no_memory,
    tbptt,
)
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

M = 64

base = Cell(
    model=ModelConfig(get_size("openvla-7b"), chunk=8, reserve=M, images="released", precision="bfloat16"),
    data=DataConfig(
        # Published demonstrations and episodes use physics on the GPU (spec 6.1).
        DatasetConfig(TaskConfig("RememberColor3-VLA-v0", physics="gpu"), episodes=250),
        augmentation="episode",  # published: frame by frame, which changes the colour that the memory must hold
    ),
    memory=MemoryConfig("tokens", M),
    truncation=8,
    budget=BudgetConfig(slots=4, window=8, updates=10_000),
    # As published, except for the fraction of warm-up: the published warm-up is 2,000 of 150,000 steps (spec 5).
    optimizer=OptimizerConfig(lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01, warmup=0.02, final=0.1, clip=None),
    start=StartConfig("openvla/openvla-7b"),
    lora=LoraConfig(rank=32, alpha=16.0),
)

study = Study(
    name="openvla_remember",
    title="Do K and the labels matter for OpenVLA-7B on RememberColor3?",
    base=base,
    variants={
        "none": no_memory(),
        "dummy": dummy(M),
        "K=8": {},
        "K=2": tbptt(2, M),
        "K=1": tbptt(1, M),
        "recorded, K=2": {**tbptt(2, M), "data.labels": "recorded"},
    },
    factors=("memory.kind", "memory.m", "memory.alpha", "truncation", "data.labels"),
    seeds=(0, 1, 2),
    protocols=(get_protocol("mikasa-remember-color3-rh@2"),),
    interventions=("noise_unit", "noise_matched", "zero", "freeze_first"),
)
