"""The same interventions and probes on a MIKASA checkpoint: RememberColor3, the cells of experiments/mikasa_quick, few
episodes. A check of the path, no evidence."""

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
# One cue and delay, so that transplants have donors in the same phases.
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
    notes="Sixteen episodes of one training seed: the path works, from interventions to figures, and this is no "
    "evidence about memory.",
)
