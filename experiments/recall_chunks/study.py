"""Does a policy that was trained with long chunks bypass its memory, and was it trained to?"""

from __future__ import annotations

import dataclasses

from muvla.config import (
    BudgetConfig,
    Cell,
    DataConfig,
    DatasetConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    no_memory,
    tbptt,
)
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from muvla.probes.base import Grid, Point
from muvla.probes.chunk_length import chunk_lengths
from sweeps.contrasts import Contrasts
from sweeps.predictions import Prediction
from sweeps.study import Study

M = 4
CHUNKS = (1, 4, 8)  # H, trained
EXECUTED = (1, 2, 4, 8)  # h
POSITION = get_protocol("recall-position3-even-rh@1")
FEWER = replace(POSITION, {"name": "recall-position3-even60-rh", "episodes": 60})  # the base of the probe's grids

VARIANTS = {
    **{f"H={H}": tbptt(8, M) | {"model.chunk": H} for H in CHUNKS},
    **{f"H={H}, recorded": tbptt(8, M) | {"model.chunk": H, "data.labels": "recorded"} for H in CHUNKS},
    **{f"H={H}, none": no_memory() | {"model.chunk": H} for H in CHUNKS},
}
WITH_MEMORY = tuple(name for name in VARIANTS if "none" not in name)


def _protocol(h: int, tick: str) -> str:
    """Return the id of the probe's protocol with h actions per query."""
    return chunk_lengths(FEWER, (h,), ("none",), tick=tick).points[0].protocol.id


def _by_tick() -> Grid:
    """h actions per query × the memory as it is, zeroed and removed × the memory's tick, per query or per step."""
    memories = ("none", "zero", "drop")
    per_call = chunk_lengths(FEWER, EXECUTED, memories, tick="call")
    per_step = chunk_lengths(FEWER, tuple(h for h in EXECUTED if h > 1), memories, tick="env_step")
    points = []
    for point in (*per_call.points, *per_step.points):
        where = dict(point.coordinates)
        condition = f"{where['memory']}, tick {where['tick'] if where['h'] > 1 else 'call'}"
        points.append(Point(point.protocol, point.intervention, (*point.coordinates, ("cadence", condition))))
    notes = (
        "h actions per query. An h past the cell's chunk H: the chunk's last action is held. At h = 1 ticks are alike."
    )
    return dataclasses.replace(per_call, points=tuple(points), curve="cadence", notes=notes)


study = Study(
    name="recall_chunks",
    title="Does a policy that was trained with long chunks bypass its memory?",
    base=Cell(
        model=ModelConfig(size=get_size("tiny"), chunk=1, guard="context", reserve=M),
        data=DataConfig(dataset=DatasetConfig(task=POSITION.task, episodes=480)),
        memory=MemoryConfig(kind="tokens", m=M),
        truncation=8,
        budget=BudgetConfig(slots=16, window=8, updates=400),
        optimizer=OptimizerConfig(lr=2.5e-4),
    ),
    variants=VARIANTS,
    factors=("memory.kind", "memory.m", "truncation", "model.chunk", "data.labels"),
    seeds=(0, 1, 2, 3, 4),
    protocols=(POSITION,),
    interventions=("zero", "drop"),
    probes=(_by_tick(),),
    predictions=(
        Prediction("`zero` brings the choice to chance at h = 1", WITH_MEMORY, "zero", "to_chance", where="used"),
        Prediction(
            "`zero` changes nothing where eight actions of one query are executed: the chunk bypasses the memory",
            ("H=8", "H=8, recorded"),
            "zero",
            "null",
            protocol=_protocol(8, "call"),
        ),
        Prediction(
            "`zero` lowers the choice at h = 2",
            WITH_MEMORY,
            "zero",
            "lower",
            where="used",
            protocol=_protocol(2, "call"),
        ),
    ),
    # Six contrasts are the most that five seeds can carry: 6 · 2/252 < 0.05.
    contrasts=Contrasts(
        pairs=(
            ("H=1", "H=1, none"),
            ("H=4", "H=4, none"),
            ("H=8", "H=8, none"),
            ("H=8", "H=1"),
            ("H=8, recorded", "H=8"),
            ("H=1, recorded", "H=1"),
        )
    ),
    notes="""
The study's protocol queries at every step. The probe executes h actions per query.

What these numbers cannot show:

- A null of `zero` at h = 8 says that the chunk of an early query holds the choice. The memory may hold it as well.
- The delay has one or two steps, so that a chunk of four can reach from the cue to the decision.
- No bound on a policy without memory holds for h > 1.
""",
)
