"""Interventions and probes of recall_causality on a MIKASA checkpoint: RememberColor3, few episodes.

The cells are those of experiments/mikasa_quick. The study checks the path and gives no evidence.
"""

from __future__ import annotations

import dataclasses

from experiments.mikasa_quick.study import study as trained
from experiments.recall_causality.study import DONORS, HELD, NOISE, REMOVED
from muvla.config.serialization import replace
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.chunk_length import chunk_lengths
from muvla.probes.palette import palettes
from muvla.probes.phase_length import phase_lengths
from muvla.probes.registry import get_measurement

BASE = trained.protocols[0]
# A fixed cue and delay length gives transplants donors in the same phases.
FEWER = replace(
    BASE,
    {"name": "mikasa-remember-color3-causality-rh", "episodes": 16, "task.cue": (3, 3), "task.delay": (3, 3)},
)

study = dataclasses.replace(
    trained,
    name="recall_causality_mikasa",
    title="Do interventions and probes run on RememberColor3 of MIKASA-Robo?",
    protocols=(FEWER,),
    interventions=(*NOISE[-1:], *REMOVED, *HELD[:2], "empty@cue_end", *DONORS[:3]),
    probes=(
        phase_lengths(FEWER, lengths=(3, 10)),
        chunk_lengths(FEWER, hs=(1, 4), memories=("none", "zero")),
        palettes(FEWER, replaced=(1, 3), sample=1),
        ScheduledMeasurement(get_measurement("dynamics"), FEWER),
        ScheduledMeasurement(get_measurement("attention"), FEWER, episodes=1),
        ScheduledMeasurement(get_measurement("gradients"), FEWER, episodes=2),
    ),
    notes="Sixteen episodes of one training seed show that the path from interventions to figures works. They are no "
    "evidence about memory.",
)
