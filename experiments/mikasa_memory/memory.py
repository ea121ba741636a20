"""Stage 2 of mikasa_memory: from the weights of stage 1, without the first image, with a memory."""

from __future__ import annotations

from experiments.mikasa_memory.stages import SEEDS, SHORT_PROTOCOL, M, get_start, make_base
from muvla.config import dummy, no_memory, tbptt
from sweeps.contrasts import Contrasts
from sweeps.study import Study

study = Study(
    name="mikasa_memory_memory",
    title="Stage 2 of 3: does a memory take the place of the first image?",
    base=make_base(**{"start.checkpoint": get_start("vision", "first_image")}),
    variants={"tokens": tbptt(8, M), "dummy": dummy(M), "none": no_memory()},
    factors=("memory.kind", "memory.m", "truncation"),
    seeds=SEEDS,
    protocols=(SHORT_PROTOCOL,),
    contrasts=Contrasts(pairs=(("tokens", "dummy"), ("tokens", "none"))),
    notes="""
The held-out error at the first decision step decides the stage: it must fall for `tokens` and stay for `dummy` and
`none`. Demonstrations end with the second step of the decision, so success and touch are no criteria here.
""",
)
