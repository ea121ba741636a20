"""Stage 3 of mikasa_memory: whole demonstrations with full delays, each variant from its weights of stage 2."""

from __future__ import annotations

from experiments.mikasa_memory.stages import (
    FULL,
    FULL_PROTOCOL,
    SEEDS,
    SHORT,
    M,
    demonstrations,
    get_start,
    held_out,
    make_base,
)
from muvla.config import dummy, no_memory, tbptt
from sweeps.contrasts import Contrasts
from sweeps.predictions import Prediction
from sweeps.study import Study

W = 16  # window, and truncation length of `tokens`: the longest cue and delay have ten steps together

MEMORIES = {"tokens": tbptt(W, M), "dummy": dummy(M), "none": no_memory()}

study = Study(
    name="mikasa_memory",
    title="Does a small policy remember a colour on RememberColor3 of MIKASA-Robo?",
    base=make_base(
        **{
            "data.dataset": demonstrations(SHORT),
            "data.mixture": (demonstrations(FULL),),
            "data.decision_steps": None,
            "data.held_out": held_out(FULL),
            "budget.slots": 16,
            "budget.window": W,
        }
    ),
    variants={name: memory | {"start.checkpoint": get_start("memory", name)} for name, memory in MEMORIES.items()},
    factors=("memory.kind", "memory.m", "truncation", "start.checkpoint"),
    seeds=SEEDS,
    protocols=(FULL_PROTOCOL,),
    interventions=("zero", "transplant", "transplant_same"),
    predictions=(
        Prediction("`tokens` chooses above chance", ("tokens",), "none", "above_chance"),
        Prediction("`dummy` and `none` choose at chance", ("dummy", "none"), "none", "chance"),
        Prediction("`zero` brings the choice of `tokens` to chance", ("tokens",), "zero", "to_chance", where="used"),
        Prediction(
            "`transplant` makes the policy choose the donor's target",
            ("tokens",),
            "transplant",
            "higher",
            quantity="follow",
            versus="transplant_same",
            where="used",
        ),
        Prediction("`transplant_same` changes nothing: a sham", ("tokens",), "transplant_same", "null", where="used"),
    ),
    contrasts=Contrasts(pairs=(("tokens", "dummy"), ("tokens", "none")), primary="choice"),
    notes="""
Aim, stated before the run: touch of at least 0.8 and first-touch accuracy of at least 0.8 for `tokens`, chance for
`dummy` and `none`.

What these numbers cannot show:

- Every variant starts from the weights of its own earlier stage. A difference is one of the whole recipe.
- The layouts of the evaluation are new, but the colours and the three places are those of the training.
""",
)
