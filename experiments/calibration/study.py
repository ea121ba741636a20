"""Three variants with twenty training seeds each: the material on which the verdicts of reports are calibrated."""

from __future__ import annotations

from experiments.recall_quick.study import M, U
from experiments.recall_quick.study import base as shorter
from muvla.config import dummy, tbptt
from muvla.config.serialization import replace
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

# Cue and delay have one length, so that every episode has donors in the same phases, and no blank precedes the cue.
PROTOCOL = replace(
    get_protocol("recall-position3-rh@1"),
    {"name": "calibration-position3-rh", "task.cue": (2, 2), "task.delay": (2, 2)},
)

NOTES = """
experiments/calibration/README.md says how the rows are used. The study makes no statement about memory: it measures how
often the tests of a report are wrong.

What these numbers cannot show:

- All pairs of halves come from the same 20 training seeds, so the trials depend on each other.
- The study has one task and one small policy. Other tasks have other distributions over training seeds.
"""

study = Study(
    name="calibration",
    title="How often is a verdict of a report wrong?",
    base=replace(shorter, {"budget.updates": 2 * U}),
    variants={"dummy": dummy(M), "K=1": tbptt(1, M), "K=2": tbptt(2, M)},
    factors=("memory.kind", "memory.m", "truncation"),
    seeds=tuple(range(20)),
    protocols=(PROTOCOL,),
    interventions=(
        "noise_matched",
        "zero",
        "empty",
        "freeze_first",
        "transplant",
        "transplant_same",
        "permute_tokens(identity)",
    ),
    notes=NOTES,
)
