"""Stage 1 of mikasa_memory: a policy without memory learns to see, with the first image at every step."""

from __future__ import annotations

from experiments.mikasa_memory.stages import SEEDS, SHORT_PROTOCOL, make_base
from sweeps.contrasts import Contrasts
from sweeps.study import Study

study = Study(
    name="mikasa_memory_vision",
    title="Stage 1 of 3: does a small policy bind colour to place, where the first image shows the colour?",
    base=make_base(),
    variants={"first_image": {"data.first_image": True}, "none": {}},
    factors=("data.first_image",),
    seeds=SEEDS,
    protocols=(SHORT_PROTOCOL,),
    contrasts=Contrasts(pairs=(("first_image", "none"),)),
    notes="""
The held-out error at the first decision step decides the stage. Demonstrations end with the second step of the
decision, so a policy of this stage does not reach the cube: success and touch are no criteria here.
""",
)
