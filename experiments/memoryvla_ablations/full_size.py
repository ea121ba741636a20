"""The ablations at 7B on MemoryVLA's five tasks of MIKASA-Robo, under control. The study was never run."""

from __future__ import annotations

from experiments.memoryvla_ablations.ablations import PAIRS
from muvla.config import Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig
from muvla.config.memoryvla import FACTORS, ablations, get_preset
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.envs.mikasa.suite import MEMORYVLA_TASKS
from muvla.evaluation.catalog import get_protocols
from sweeps.contrasts import Contrasts
from sweeps.study import Study

# 250 demonstrations a task, from seeds that no evaluation uses.
DATASETS = tuple(DatasetConfig(task, episodes=250, seed=10_000) for task in MEMORYVLA_TASKS)

study = Study(
    name="memoryvla_ablations_full_size",
    title="Which parts of MemoryVLA's bank matter on MIKASA-Robo?",
    base=replace(
        Cell(
            model=ModelConfig(get_size("openvla-7b"), images="released"),
            data=DataConfig(DATASETS[0], mixture=DATASETS[1:]),
            memory=MemoryConfig("bank", place="fuse"),
        ),
        get_preset("mikasa", "controlled"),
    ),
    variants=ablations(16),
    factors=FACTORS,
    seeds=(0, 1, 2, 3, 4),
    protocols=get_protocols("memoryvla-mikasa5-rh@1"),
    interventions=("zero", "empty", "skip_read"),
    contrasts=Contrasts(pairs=PAIRS),
    notes="""
The controlled preset of MIKASA-Robo (docs/memoryvla-recipes.md): chunks of one action, whole episodes, executed labels,
time in steps. The study needs a network and eight GPUs of 80 GB; at the published 4 s an update a cell takes 22 hours.
It was never run.
""",
)
