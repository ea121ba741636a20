"""The effect of a memory: interventions with their shams, and probes, on cells with and without use of a memory."""

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
    tbptt,
)
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.chunk_length import chunk_lengths
from muvla.probes.phase_length import phase_lengths
from muvla.probes.registry import get_measurement
from muvla.probes.time_map import time_map
from sweeps.predictions import Prediction
from sweeps.study import Study

M = 4  # memory width
U = 400  # updates
BLANK = (0, 3)  # steps before the mark is shown; with 1 or more, the first tick has not seen the mark

BASE = get_protocol("recall-position3-blank-rh@1")
FEWER = replace(BASE, {"name": "recall-position3-blank50-rh", "episodes": 50})  # the base of the probes' grids

base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, guard="context", memory_positions="reserved", reserve=M),
    data=DataConfig(dataset=DatasetConfig(task=TaskConfig("RecallPosition3-v0", blank=BLANK), episodes=500)),
    memory=MemoryConfig(kind="tokens", m=M),
    truncation=8,
    budget=BudgetConfig(slots=16, window=8, updates=U),
    optimizer=OptimizerConfig(lr=2.5e-4),
)

NOISE = ("noise_unit", "noise_init", "noise_norm", "noise_matched")
RELATIVE = ("noise_relative(0)", "noise_relative(0.25)", "noise_relative(1)")
REMOVED = ("zero", "empty", "drop", "mean")
HELD = ("freeze_first", "freeze@cue_end..", "empty@..cue_end", "empty@cue_end", "stale(1)", "stale(3)")
TOKENS = ("permute_tokens", "permute_tokens(identity)", *(f"lesion({i})" for i in range(M)))
DONORS = (
    "transplant",
    "transplant_same",
    "transplant_self",
    "direction(1)",
    "orthogonal(1)",
    "direction(4)",
    "orthogonal(4)",
)

USING = ("K=8", "recorded, K=2")
ALL = ("K=8", "K=1", "dummy", "recorded, K=2")
CHANCE = "to chance where the memory is used"
NOTHING = "changes nothing where the memory is not used"


def used(text: str, intervention: str, expected: str, **more) -> Prediction:
    return Prediction(f"`{intervention}` {text}", USING, intervention, expected, where="used", **more)


# Written before the run. docs/causality.md defines the words, and says when a prediction is supported or refuted.
predictions = (
    # A policy that reads no memory, or a memory without content, chooses at chance.
    *(
        used(f"brings the choice {CHANCE}", name, "to_chance")
        for name in ("noise_unit", "noise_matched", "zero", "drop")
    ),
    # The content written while the mark was shown decides the choice, and the memory holds all of this content.
    used("brings the choice to chance: what was seen of the mark is gone", "empty@cue_end", "to_chance"),
    used("brings the choice to chance: nothing later shows the mark again", "empty@..cue_end", "to_chance"),
    used("changes nothing: what the cue's last step wrote is all that is needed", "freeze@cue_end..", "null"),
    used("lowers the choice: the first tick has not seen the mark, but where the blank is 0", "freeze_first", "lower"),
    # The content decides, not the replacement itself.
    used("makes the policy choose the donor's target", "transplant", "above_chance", quantity="follow"),
    used("does so more than the same episodes without it", "transplant", "higher", quantity="follow"),
    used("changes nothing: a sham, another episode of the same target", "transplant_same", "null"),
    used("changes nothing: a sham, its own memory", "transplant_self", "null"),
    used("lowers the choice, more than its sham does", "direction(4)", "lower", versus="orthogonal(4)"),
    used("changes nothing: the order that they have", "permute_tokens(identity)", "null"),
    used("changes nothing: noise of no size", "noise_relative(0)", "null"),
    # If the plain run is at chance, an intervention has nothing to lower, for every variant.
    *(
        Prediction(f"`{name}` {NOTHING}", ALL, name, "null", where="unused")
        for name in ("noise_matched", "zero", "drop", "freeze@cue_end..", "transplant", "transplant_same")
    ),
    Prediction(
        f"`transplant` {NOTHING}: no choice of the donor's target above chance",
        ("K=1", "dummy"),
        "transplant",
        "null",
        quantity="follow",
        where="unused",
    ),
)

NOTES = """
experiments/recall_causality/README.md describes variants, interventions, probes and predictions. docs/causality.md
defines the words.

What these numbers cannot show:

- Choice accuracy is conditioned on a touch. If few episodes have a touch in both runs, the paired difference rests on
  few episodes and its interval is wide. Read the difference beside the share of own target among all episodes.
- Zeros, noise and other episodes' memories also disturb the movement, on `dummy` too.
- H = 1 here. An h above 1 repeats one action and ticks the memory once per h steps; this probe says nothing about long
  chunks that were trained.
- The study has one task with three places, one small policy and one recipe.
- The predictions are many, and their intervals are not corrected for this number. A refutation in a single training
  seed refutes nothing.
"""

study = Study(
    name="recall_causality",
    title="Does the policy act on the content of its memory?",
    base=base,
    variants={
        "K=8": tbptt(8, M),
        "K=1": tbptt(1, M),
        "dummy": dummy(M),
        "recorded, K=2": tbptt(2, M) | {"data.labels": "recorded"},
    },
    factors=("memory.kind", "memory.m", "truncation", "data.labels"),
    seeds=(0, 1, 2, 3, 4),
    protocols=(BASE,),
    interventions=(*NOISE, *RELATIVE, *REMOVED, *HELD, *TOKENS, *DONORS),
    probes=(
        phase_lengths(FEWER, lengths=(3, 5, 10, 20, 50, 100)),
        chunk_lengths(FEWER, hs=(1, 2, 4, 8, 16)),
        time_map(FEWER, kinds=("noise_matched",), steps=(0, 1, 2, 3, 5), blocks=(None, (0, 2), (2, 4))),
        ScheduledMeasurement(get_measurement("dynamics"), BASE, episodes=100),
        ScheduledMeasurement(get_measurement("decoders"), BASE),
        ScheduledMeasurement(get_measurement("gradients"), BASE, episodes=25),
        ScheduledMeasurement(get_measurement("attention"), BASE, episodes=4),
    ),
    predictions=predictions,
    notes=NOTES,
)
