"""The variants of the published table under control: nothing differs but the declared factors.

Budget, executed labels and guard are the same for all variants, unless a variant declares another. The study needs a
network, a GPU of 80 GB and months of GPU time. It was never run.
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
)
from muvla.config.presets import FACTORS, M, of_version, paper_variants
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.envs.mikasa.tasks import TRAINED
from muvla.evaluation.catalog import get_protocols
from sweeps.study import Study

# The first task is the task on which the published variants differ most. alone.py trains it alone.
TASKS = ("RememberColor5-VLA-v0", *(name for name in TRAINED if name != "RememberColor5-VLA-v0"))
# Each task has 250 demonstrations, with physics on the GPU, as published (spec 6.1).
DATASETS = tuple(DatasetConfig(TaskConfig(name, physics="gpu"), episodes=250) for name in TASKS)
U, WARMUP = 150_000, 0.01333  # 2,000 updates

base = replace(
    Cell(
        model=ModelConfig(get_size("openvla-7b"), reserve=M, images="released", precision="bfloat16"),
        data=DataConfig(DATASETS[0], mixture=DATASETS[1:]),  # tasks by episodes, as published (spec 4.1)
        memory=MemoryConfig("tokens", M),
        truncation=8,
        budget=BudgetConfig(updates=U),
        optimizer=OptimizerConfig(lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01, warmup=WARMUP, final=0.1),
        start=StartConfig("openvla/openvla-7b"),
        lora=LoraConfig(rank=32, alpha=16.0),
    ),
    of_version("controlled"),
)

study = Study(
    name="paper_table",
    title="Which differences of the published table remain under control?",
    base=base,
    variants=paper_variants("controlled"),
    factors=FACTORS,
    seeds=(0, 1, 2),
    protocols=get_protocols("mikasa5-rh@1"),
    interventions=("noise_unit", "noise_matched", "zero", "freeze_first"),
    notes="""
The protocol queries every step. Chunks have one action, so that no decision supervises a delay frame. Chunks of one
action cannot run open loop.
""",
)
