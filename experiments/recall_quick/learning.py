"""recall_quick with the number of updates until success as the primary metric.

muvla sweep experiments/recall_quick/learning.py
"""

from __future__ import annotations

import dataclasses

from experiments.recall_quick.longer import study as longer
from muvla.config.serialization import replace
from muvla.evaluation.catalog import get_protocol
from sweeps.contrasts import Contrasts
from sweeps.time_to_learn import TimeToLearn

VARIANTS = ("dummy", "K=8", "K=2", "K=1", "EMA 0.1")
# Episodes that no other evaluation uses. The chance of the task is 1/3, so 50 episodes tell 0.9 from it.
DURING = replace(
    get_protocol("recall-position3-rh@1"),
    {"name": "recall-position3-during-rh", "seed": 4_242_500_000, "episodes": 50},
)

NOTES = """
The training seeds are not those of recall_quick, whose results suggested the question.

What these numbers cannot show:

- A time is known up to the distance of two declared updates.
- The schedule of the learning rate ends at the last update: a variant that is slow here may be fast under a longer one.
"""

study = dataclasses.replace(
    longer,
    name="recall_quick_learning",
    title="After how many updates do variants remember the marked disc?",
    variants={name: changes for name, changes in longer.variants.items() if name in VARIANTS},
    factors=("memory.kind", "memory.m", "memory.alpha", "truncation"),
    seeds=tuple(range(20, 30)),
    interventions=(),
    probes=(),
    predictions=(),
    contrasts=Contrasts(pairs=(("K=8", "K=2"), ("K=8", "K=1"), ("K=2", "K=1")), primary="time_to_learn"),
    time_to_learn=TimeToLearn(DURING, (50, 100, 150, 200, 300, 400, 600, 800)),
    notes=NOTES,
)
