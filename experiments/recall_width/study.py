"""How many memory tokens does a set of two places need, and does the answer depend on the truncation length?"""

from __future__ import annotations

from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    DatasetConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    dummy,
    no_memory,
    tbptt,
)
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.contrasts import Contrasts
from sweeps.predictions import Prediction
from sweeps.study import Study

WIDTHS, TRUNCATIONS = (1, 2, 4, 8, 16), (8, 2)
CAPACITY = get_protocol("recall-capacity5-rh@1")
MEMORIES = {f"m={m}, K={K}": tbptt(K, m) for K in TRUNCATIONS for m in WIDTHS}
# Controls: four tokens without content, and the targets in words, which a policy must be able to act on.
CONTROLS = {"dummy": dummy(4), "target in words": no_memory() | {"data.instruction": "with_target"}}

study = Study(
    name="recall_width",
    title="How does success on a set of two places depend on memory width m and truncation length K?",
    base=Cell(
        model=ModelConfig(size=get_size("tiny"), chunk=1, guard="context", reserve=max(WIDTHS), prompt_tokens=14),
        data=DataConfig(dataset=DatasetConfig(task=CAPACITY.task, episodes=480)),
        memory=MemoryConfig(kind="tokens", m=4),
        truncation=8,
        budget=BudgetConfig(slots=16, window=8, updates=600),
        optimizer=OptimizerConfig(lr=2.5e-4),
    ),
    variants=MEMORIES | CONTROLS,
    factors=("memory.kind", "memory.m", "truncation", "data.instruction"),
    seeds=(0, 1, 2, 3, 4),
    protocols=(CAPACITY,),
    interventions=("zero", "noise_matched", "transplant", "transplant_same"),
    predictions=(
        Prediction("`zero` lowers the choice of every width", tuple(MEMORIES), "zero", "lower", where="used"),
        Prediction(
            "`transplant` makes the policy choose the donor's target",
            tuple(MEMORIES),
            "transplant",
            "higher",
            quantity="follow",
            versus="transplant_same",
            where="used",
        ),
        Prediction("`transplant_same` changes nothing", tuple(MEMORIES), "transplant_same", "null", where="used"),
    ),
    # Six contrasts are the most that five seeds can carry: 6 · 2/252 < 0.05.
    contrasts=Contrasts(
        pairs=(
            ("m=4, K=8", "m=1, K=8"),
            ("m=16, K=8", "m=1, K=8"),
            ("m=16, K=8", "m=4, K=8"),
            ("m=16, K=2", "m=1, K=2"),
            ("m=4, K=8", "m=4, K=2"),
            ("m=16, K=8", "m=16, K=2"),
        )
    ),
    notes="""
Positions are reserved for 16 tokens in every cell, so the width changes no position. A wider memory also has more
initial parameters and more FLOPs a tick; the plan prints both.

What these numbers cannot show:

- One token of width 96 can hold two of five places in principle. A difference between widths is a difference in what is
  learned in 600 updates.
- The recipe was searched for m = 4 and K = 8 on another task.
""",
)
