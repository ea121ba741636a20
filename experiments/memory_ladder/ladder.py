"""Which memory climbs how far under one budget? One study per rung of the ladder; all rungs share their variants."""

from __future__ import annotations

from typing import Any

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
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.registry import get_measurement
from sweeps.contrasts import Contrasts
from sweeps.predictions import Prediction
from sweeps.study import Study

M = 4  # memory width
PATCHES = 8  # vision tokens of a frame: two cameras of four patches
STACK = 4  # frames of the frame stack
U = 600  # updates

FRAMES = {"memory.frame_tokens": PATCHES}
# The bank's perceptual entries have the width of the other mechanisms' states; 256 is the width for 7B parameters.
BANK = {"memory.kind": "bank", "memory.m": M, "memory.perceptual_width": 16, "memory.capacity": 16}
GRU = {"memory.kind": "gru", "memory.m": M}

VARIANTS: dict[str, dict[str, Any]] = {
    "none": no_memory(),
    "dummy": dummy(M),
    "target in words": no_memory() | {"data.instruction": "with_target"},
    "first_frame": {"memory.kind": "first_frame", **FRAMES},
    "frame_stack": {"memory.kind": "frame_stack", "memory.k": STACK, **FRAMES},
    "tokens": tbptt(8, M),
    "gated tokens": tbptt(8, M) | {"memory.gate": "learned"},
    "gru": GRU,
    "gru, emptied": GRU | {"memory.emptied": True},
    "bank": BANK,
    "bank, emptied": BANK | {"memory.emptied": True},
}
# A mechanism and its emptied twin. Frames have no parameters, so their twin is no memory.
TWINS = {
    "tokens": "dummy",
    "gated tokens": "dummy",
    "gru": "gru, emptied",
    "bank": "bank, emptied",
    "frame_stack": "none",
    "first_frame": "none",
}
MEMORIES = tuple(TWINS)
RECURRENT = ("tokens", "gated tokens", "gru", "bank")

INTERVENTIONS = ("zero", "empty", "noise_matched", "transplant", "transplant_same", "freeze@cue_end..")

NOTES = """
README.md describes the variants, the predictions and the controls. All variants have one budget and one recipe.

What these numbers cannot show:

- A variant at chance after U updates may learn later, or with another recipe.
- Frames of a stack cost more FLOPs a tick than tokens; the plan prints both.
- `zero` and `noise_matched` also disturb the movement. A statement about content rests on `transplant` against
  `transplant_same`.
- The tasks have a small policy, three discs and delays up to five steps.
"""


def _predict(task_needs_update: bool) -> tuple[Prediction, ...]:
    """The predictions of a rung, written before the run."""
    held = "lower" if task_needs_update else "null"
    return (
        Prediction("`empty` brings the choice to chance", MEMORIES, "empty", "to_chance", where="used"),
        Prediction("`zero` lowers the choice", RECURRENT, "zero", "lower", where="used"),
        Prediction(
            "`transplant` makes the policy choose the donor's target",
            MEMORIES,
            "transplant",
            "higher",
            quantity="follow",
            versus="transplant_same",
            where="used",
        ),
        Prediction("`transplant_same` changes nothing: a sham", MEMORIES, "transplant_same", "null", where="used"),
        Prediction(
            "`freeze@cue_end..` "
            + ("lowers the choice: the delay changes the target" if task_needs_update else "changes nothing"),
            ("tokens", "gated tokens", "gru"),
            "freeze@cue_end..",
            held,
            where="used",
        ),
    )


def make_study(name: str, protocol: Protocol, prompt_tokens: int, needs_update: bool = False) -> Study:
    """Return the study of one rung.

    Args:
        name: of the rung, for the study's name.
        protocol: the evaluation, whose task is also the training's.
        prompt_tokens: tokens of the prompt with the target in words; all prompts are padded to this length.
        needs_update: the delay changes what must be remembered.
    """
    return Study(
        name=f"memory_ladder_{name}",
        title=f"Which memories climb the rung {name}?",
        base=_make_base(protocol, prompt_tokens),
        variants=VARIANTS,
        factors=(
            "memory.kind",
            "memory.m",
            "memory.gate",
            "memory.emptied",
            "data.instruction",
        ),
        seeds=(0, 1, 2, 3, 4),
        protocols=(protocol,),
        interventions=INTERVENTIONS,
        probes=(ScheduledMeasurement(get_measurement("retrieval"), protocol, episodes=25),),
        predictions=_predict(needs_update),
        # Six contrasts are the most that five seeds can carry: 6 · 2/252 < 0.05.
        contrasts=Contrasts(pairs=tuple(TWINS.items())),
        notes=NOTES,
    )


def make_twin(name: str, protocol: Protocol, prompt_tokens: int) -> Study:
    """Return the positive control of one rung: no memory on the observable twin, with the rung's recipe and budget.

    Args:
        name: of the rung.
        protocol: the evaluation of the rung; the twin's protocol has its episodes.
        prompt_tokens: tokens of the prompt, as in the rung.
    """
    twin = replace(protocol, {"name": f"{protocol.name}-twin", "task.observable": True})
    return Study(
        name=f"memory_ladder_{name}_twin",
        title=f"Can a policy without memory act on the rung {name}, where nothing is to be remembered?",
        base=replace(_make_base(twin, prompt_tokens), no_memory()),
        variants={"observable twin": {}},
        factors=(),
        seeds=(0,),
        protocols=(twin,),
        notes="""
A rung counts where the twin reaches 0.9 of the expert. A success here says nothing about memory.
""",
    )


def _make_base(protocol: Protocol, prompt_tokens: int) -> Cell:
    return Cell(
        model=ModelConfig(
            size=get_size("tiny"), chunk=1, guard="context", reserve=PATCHES * (STACK - 1), prompt_tokens=prompt_tokens
        ),
        data=DataConfig(dataset=DatasetConfig(task=protocol.task, episodes=480)),
        memory=MemoryConfig(kind="tokens", m=M),
        truncation=8,
        budget=BudgetConfig(slots=16, window=8, updates=U),
        optimizer=OptimizerConfig(lr=2.5e-4),
    )


def with_delay(protocol: Protocol, name: str, steps: int) -> Protocol:
    """Return the protocol on a delay of exactly `steps`, under a name of its own."""
    return replace(protocol, {"name": name, "task.delay": (steps, steps)})


POSITION = get_protocol("recall-position3-even-rh@1")
SEQUENCE, OVERWRITE = get_protocol("recall-sequence3-rh@1"), get_protocol("recall-overwrite3-rh@1")
