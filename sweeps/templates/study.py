"""A study: one question, asked as a controlled comparison.

muvla sweep STUDY --plan     the cells, their budgets and exactly what differs, before anything runs
muvla sweep STUDY            collects demonstrations, then trains, evaluates and intervenes; a rerun continues
muvla report STUDY           tables and figures

STUDY is the folder of this file. Other modules in this folder can be imported by their names.
"""

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
    no_memory,
    tbptt,
)
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

M = 4  # memory width: number of memory tokens

# Every field that no variant changes is shared by all variants.
base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=M),
    data=DataConfig(dataset=DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=100)),
    memory=MemoryConfig("tokens", M),
    truncation=8,  # K: gradient crosses K - 1 ticks
    # This budget shows that everything runs, in minutes on a CPU. Learning the task takes slots=16, updates=400.
    budget=BudgetConfig(slots=4, window=8, updates=50),
    optimizer=OptimizerConfig(lr=2.5e-4),
)

study = Study(
    name="NAME",
    title="does a longer truncation length help the memory to learn",
    base=base,
    # A variant is a set of overrides of the base. `dummy` has tokens that carry nothing from tick to tick.
    variants={"none": no_memory(), "dummy": dummy(M), "K=8": tbptt(8, M), "K=1": tbptt(1, M)},
    # Variants may change these fields and no others: any other difference is refused.
    factors=("memory.kind", "memory.m", "truncation"),
    seeds=(0,),  # training seeds; a claim about a variant needs several
    protocols=(get_protocol("recall-position3-rh@1"),),
    interventions=("zero",),  # each is applied to every trained cell that has a memory
)
