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
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.contrasts import Contrasts
from sweeps.study import Study

M = 4  # memory width
U = 400  # updates; the recipe's training length (README.md, search)

base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, guard="context", memory_positions="reserved", reserve=M),
    data=DataConfig(dataset=DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=500)),
    memory=MemoryConfig(kind="tokens", m=M),
    truncation=8,
    budget=BudgetConfig(slots=16, window=8, updates=U),
    optimizer=OptimizerConfig(lr=2.5e-4),
)
RECORDED, LONGER_CHUNK = {"data.labels": "recorded"}, {"model.chunk": 4}

NOTES = """
README.md, "What the demo shows", describes the variants. The interventions act at every tick:

- `noise_unit` replaces the memory by standard normal numbers.
- `noise_matched` replaces the memory by normal numbers with the memory's mean and standard deviation.
- `zero` replaces the memory by zeros.
- `freeze_first` keeps the memory that the first tick of the episode wrote.

What these numbers cannot show:

- Choice accuracy is conditioned on a touch. If few episodes have a touch, these episodes are a selection: read the
  accuracy beside n and success.
- Noise and zeros also disturb the movement, on `dummy` too. The choice among the episodes that still touch measures the
  memory.
- The mark is shown in the first frame, so `freeze_first` keeps all content that a memory needs here. The intervention
  tests that no later write is needed; it does not test retention.
- The pairs inside a block count from the last frame of the cue to the first frame of the decision. A variant without
  such pairs can still learn by other routes. A variant at chance after U updates may learn later: see the other
  training length.
- The contrasts were declared after seeds 0-4 of all variants but `recorded, K=8` and `recorded, EMA 0.1` were known.
- The study has one task with a delay of one or two steps, one small policy, and a recipe that was searched for `K=8`
  with executed labels alone. Other variants might do better with another recipe.
"""

study = Study(
    name="recall_quick",
    title="Which variants remember the marked disc?",
    base=base,
    variants={
        "none": no_memory(),
        "dummy": dummy(M),
        "K=8": tbptt(8, M),
        "K=2": tbptt(2, M),
        "K=1": tbptt(1, M),
        "EMA 0.1": ema(0.1, M),
        "recorded, K=8": tbptt(8, M) | RECORDED,
        "recorded, K=2": tbptt(2, M) | RECORDED,
        "recorded, K=1": tbptt(1, M) | RECORDED,
        "recorded, EMA 0.1": ema(0.1, M) | RECORDED,
        "H=4, K=8": tbptt(8, M) | LONGER_CHUNK,
        "H=4, K=2": tbptt(2, M) | LONGER_CHUNK,
    },
    factors=("memory.kind", "memory.m", "memory.alpha", "truncation", "data.labels", "model.chunk"),
    seeds=(0, 1, 2, 3, 4),
    protocols=(get_protocol("recall-position3-rh@1"),),
    interventions=("noise_unit", "noise_matched", "zero", "freeze_first"),
    # Six contrasts are the most that five seeds can carry: 6 · 2/252 < 0.05.
    contrasts=Contrasts(
        pairs=(
            ("K=8", "dummy"),
            ("K=8", "K=2"),
            ("K=8", "K=1"),
            ("recorded, K=2", "K=2"),
            ("recorded, K=8", "K=8"),
            ("H=4, K=2", "K=2"),
        )
    ),
    notes=NOTES,
)
