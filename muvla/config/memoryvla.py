"""MemoryVLA's trainings (arXiv 2508.19236), each as published and under control, and its table of ablations.

Presets and ablations are overrides for `muvla.config.serialization.replace`. The cell of a benchmark's two versions
differs in `cell_confounds(benchmark)` alone, and its evaluation in `PROTOCOL_CONFOUNDS[benchmark]`. `STUDY_CONFOUNDS`
lists what no field holds. docs/memoryvla-recipes.md has a section for each confound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from muvla.config.expert import get_expert
from muvla.config.presets import Confound, Version

# The checkpoints that trainings start from: OpenVLA before its conversion, at step 295,000, and CogACT.
OPENVLA, COGACT = "openvla/openvla-7b-prismatic", "CogACT/CogACT-Large"


@dataclass(frozen=True)
class Recipe:
    """The part of a published training that differs between benchmarks (M 4.1).

    Attributes:
        updates: U.
        order: the loader's order of frames; 256 frames an update in either order.
        start: checkpoint.
        chunk: H.
        protocols: sets of the published evaluation, and of the evaluation under control.
    """

    updates: int
    order: Literal["grouped", "episodic"]
    start: str
    chunk: int
    protocols: tuple[tuple[str, ...], tuple[str, ...]]


def _libero(updates: int, *suites: str) -> Recipe:
    published, matched = (tuple(f"memoryvla-{suite}{end}@1" for suite in suites) for end in ("", "-matched"))
    return Recipe(updates, "grouped", OPENVLA, 16, (published, matched))


RECIPES = {
    "libero-spatial": _libero(20_000, "libero-spatial"),
    "libero-object": _libero(20_000, "libero-object"),
    "libero-goal": _libero(20_000, "libero-goal"),
    "libero-100": _libero(40_000, "libero-10", "libero-90"),
    "bridge": Recipe(50_000, "episodic", COGACT, 16, (("memoryvla-bridge4@1",), ("memoryvla-bridge4@1",))),
    "fractal": Recipe(80_000, "episodic", COGACT, 16, ((), ())),  # no suite has the tasks: docs/memoryvla-recipes.md
    "mikasa": Recipe(20_000, "grouped", OPENVLA, 4, (("memoryvla-mikasa5@1",), ("memoryvla-mikasa5-rh@1",))),
}
BENCHMARKS = tuple(RECIPES)

# Confounds of every training.
CONFOUNDS = {
    "data.augmentation": Confound("frame", "episode", "2.3", "entries of a bank differ by their crops and colours"),
    "model.expert.per_attn_init": Confound("released", "fixed", "2.4", "the perceptual stream is a mean over patches"),
    "model.expert.guidance": Confound(1.5, 1.0, "2.5", "guidance amplifies the cognitive stream alone"),
}
# Confounds of trainings on groups of frames. Both orders have 256 frames an update.
GROUPED = {
    "data.order": Confound("grouped", "episodic", "2.1", "entries are merged in the test and never in training"),
    "data.group_padding": Confound("repeat", "none", "2.2", "a last frame is stored again as its past"),
    "budget.slots": Confound(16, 8, "2.1", "an update has 16 episodes in groups, 8 in streams"),
    "budget.window": Confound(16, 32, "2.1", "an update has 16 frames of an episode in groups, 32 in streams"),
}
# Confounds of trainings on tasks with a cue and a delay.
CUED = {
    "data.labels": Confound("recorded", "executed", "2.6", "labels that were never executed tell the target"),
    "data.statistics": Confound("recorded", "executed", "2.6", "actions that were never executed stretch the scale"),
    "model.chunk": Confound(4, 1, "2.7", "the chunk of a delay frame holds actions of the decision"),
}
# Confounds of the evaluations, by field of `muvla.evaluation.protocol.Protocol`.
_CADENCE = {
    "tick": Confound(
        "call", "env_step", "3.1", "the memory is written at every frame in training, per query in the test"
    ),
    "clock": Confound("call", "step", "3.2", "time counts frames in training and queries in the test"),
}
_OPEN_LOOP = {
    "regime": Confound(
        "open_loop", "receding", "3.3", "a policy that acts open loop sees less, with and without memory"
    ),
    "h": Confound(4, 1, "3.3", "a cue of five steps is seen once or twice in place of five times"),
}
PROTOCOL_CONFOUNDS = {
    name: _CADENCE if name.startswith("libero") else _CADENCE | _OPEN_LOOP if name == "mikasa" else {}
    for name in BENCHMARKS
}
# Confounds that no field holds: what the published study did, and what a study here declares in its place.
STUDY_CONFOUNDS = {
    "4.1": ("the best of about 20 checkpoints, chosen on the test", "`selection` refuses results of an evaluation"),
    "4.2": ("memory adds 528 M parameters to its baseline", "a variant with `memory.emptied`, of equal parameters"),
    "4.3": ("one training seed", "at least five seeds, and a test over seeds"),
    "4.4": ("24 to 100 episodes a task, without intervals", "intervals, and paired episodes of equal seeds"),
    "4.5": ("baselines with wrist camera, proprio or another start", "one start, one camera for all variants"),
}


def cell_confounds(benchmark: str) -> dict[str, Confound]:
    """Field of a cell → the two values of a benchmark's two versions."""
    grouped = GROUPED if RECIPES[benchmark].order == "grouped" else {}
    return CONFOUNDS | grouped | (CUED if benchmark == "mikasa" else {})


def get_preset(benchmark: str, version: Version) -> dict[str, Any]:
    """The training of a benchmark as overrides of a cell whose data and size the study gives.

    Args:
        benchmark: one of `BENCHMARKS`.
        version: as published, or under control.
    """
    recipe = RECIPES[benchmark]
    shared = {
        "model.chunk": recipe.chunk,
        "model.head": "expert",
        "model.causal": True,
        "model.expert": get_expert("DiT-L"),
        "model.images": "released",
        "model.precision": "bfloat16",
        "model.proprio": False,
        "data.cameras": 1,
        "data.labels": "recorded",
        "data.statistics": "recorded",
        "data.tail": "still",
        "data.order": recipe.order,
        "data.group": 16,
        "memory.kind": "bank",
        "memory.place": "condition",
        "memory.capacity": 16,
        "memory.stored": "raw",
        "truncation": 1,
        "budget.slots": 8,
        "budget.window": 32,
        "budget.updates": recipe.updates,
        "optimizer.lr": 2e-5,
        "optimizer.betas": (0.9, 0.999),
        "optimizer.weight_decay": 0.0,
        "optimizer.warmup": 0.0,
        "optimizer.final": 1.0,
        "optimizer.clip": 1.0,
        "start.checkpoint": recipe.start,
    }
    return shared | {field: getattr(confound, version) for field, confound in cell_confounds(benchmark).items()}


def ablations(capacity: int) -> dict[str, dict[str, Any]]:
    """The published ablations of a bank of `capacity` entries, and the controls that the paper lacks.

    Both controls come last: the emptied bank, which has equal parameters and no past, and no memory. Published is a
    capacity of 16, with a quarter and four times as many entries beside it. A time code that counts queries is no
    variant: a policy that is queried at every step counts the same numbers.
    """
    return {
        "bank": {},
        "perceptual": {"memory.streams": "perceptual"},
        "cognitive": {"memory.streams": "cognitive"},
        f"L={capacity // 4}": {"memory.capacity": capacity // 4},
        f"L={4 * capacity}": {"memory.capacity": 4 * capacity},
        "no time code": {"memory.time_code": "none"},
        "add": {"memory.fusion": "add"},
        "FIFO": {"memory.consolidation": "fifo"},
        "counted merge": {"memory.consolidation": "counted_merge"},
        "fused writes": {"memory.stored": "fused"},
        "emptied": {"memory.emptied": True},
        "none": {"memory.kind": "none"},
    }


# The fields that the ablations change.
FACTORS = tuple(dict.fromkeys(field for changes in ablations(16).values() for field in changes))
