"""The main job: memory width, truncation length, update rule, labels and chunk length on the embedded recall suite."""

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
    dummy,
    ema,
    no_memory,
    tbptt,
)
from muvla.evaluation.protocol import protocol
from muvla.models.sizes import size
from sweeps.grid import Study

M = 4  # memory width
U = 400  # updates; the recipe's training length (README.md, search)

base = Cell(
    model=ModelConfig(size=size("tiny"), chunk=1, guard="context", memory_positions="reserved", reserve=M),
    data=DataConfig(dataset=DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=500)),
    memory=MemoryConfig(kind="tokens", m=M),
    truncation=8,
    budget=BudgetConfig(slots=16, window=8, updates=U),
    optimizer=OptimizerConfig(lr=2.5e-4),
)
RECORDED, LONGER_CHUNK = {"data.labels": "recorded"}, {"model.chunk": 4}

study = Study(
    name="recall_quick",
    title="who remembers which disc was marked, and what else could have told it",
    base=base,
    arms={
        "none": no_memory(),
        "dummy": dummy(M),
        "K=8": tbptt(8, M),
        "K=2": tbptt(2, M),
        "K=1": tbptt(1, M),
        "EMA 0.1": ema(0.1, M),
        "recorded, K=2": tbptt(2, M) | RECORDED,
        "recorded, K=1": tbptt(1, M) | RECORDED,
        "H=4, K=8": tbptt(8, M) | LONGER_CHUNK,
        "H=4, K=2": tbptt(2, M) | LONGER_CHUNK,
    },
    factors=("memory.kind", "memory.m", "memory.alpha", "truncation", "data.labels", "model.chunk"),
    seeds=(0, 1, 2, 3, 4),
    protocols=(protocol("recall-position3-rh@1"),),
    interventions=("noise_unit", "noise_matched", "zero", "freeze_first"),
)
