"""Can each task of the ladder be done where nothing is to be remembered? One study per task, on its observable twin."""

from __future__ import annotations

from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    DatasetConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
)
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

NOTES = """
Every frame of the decision shows what must be known, so a policy without memory can score 1. The study separates two
causes of a low score on the task itself: a policy that cannot act on the knowledge, and a policy that has forgotten it.

What these numbers cannot show:

- A success here says nothing about memory.
- The study has one training seed per task and one recipe, which is that of `recall_quick` at fewer updates.
"""


def make_study(task: str) -> Study:
    """Return the study of one task of the ladder, by the short name in its protocol, for example `count3`."""
    protocol = get_protocol(f"recall-{task}-rh-observable@1")
    name = task.removesuffix("-even")
    base = Cell(
        model=ModelConfig(size=get_size("tiny"), chunk=1, guard="context"),
        data=DataConfig(dataset=DatasetConfig(task=protocol.task, episodes=480)),
        memory=MemoryConfig(kind="none"),
        budget=BudgetConfig(slots=16, window=8, updates=300),
        optimizer=OptimizerConfig(lr=2.5e-4),
    )
    return Study(
        name=f"recall_twins_{name}",
        title=f"Does a policy without memory solve the observable twin of {protocol.task.name}?",
        base=base,
        variants={name: {}},
        factors=(),
        seeds=(0,),
        protocols=(protocol,),
        notes=NOTES,
    )
