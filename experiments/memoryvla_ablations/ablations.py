"""MemoryVLA's ablations with the controls that the paper lacks, as one study per rung of the recall ladder."""

from __future__ import annotations

from muvla.config import BudgetConfig, Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, OptimizerConfig
from muvla.config.memoryvla import FACTORS, ablations
from muvla.config.serialization import replace
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.registry import get_measurement
from sweeps.contrasts import Contrasts
from sweeps.predictions import Prediction
from sweeps.study import Study

CAPACITY = 4  # entries: a quarter of an episode's steps, as the published 16 are of LIBERO's
INTERVENTIONS = ("zero", "empty", "shuffle_time", "skip_read", "transplant", "transplant_same")
READ = ("bank", "perceptual", "cognitive", "add", "FIFO", "counted merge", "fused writes")

# Six contrasts are the most that five seeds can carry: 6 · 2/252 < 0.05. The other variants are shown without stars.
PAIRS = (
    ("bank", "emptied"),
    ("bank", "none"),
    ("bank", "cognitive"),
    ("bank", "perceptual"),
    ("bank", "FIFO"),
    ("fused writes", "bank"),
)

NOTES = """
README.md describes the variants, the scale and the predictions.

What these numbers cannot show:

- The policy is OpenVLA-OFT at size `tiny` with the bank in the place `fuse`. MemoryVLA conditions a diffusion expert.
- Variants without a contrast have no test; read their intervals.
- The learning rate was chosen for the variant `bank` on `position3`. Other variants and the other rung had no search.
- A policy that does not touch a disc fails. Compare the touch rates before you compare successes.
"""


def make_study(name: str, delay: int) -> Study:
    """Return the study of the place of one marked disc, at a delay of exactly so many steps."""
    changes = {"name": f"recall-position3-delay{delay}-rh", "task.delay": (delay, delay)}
    protocol = replace(get_protocol("recall-position3-even-rh@1"), changes)
    return Study(
        name=f"memoryvla_ablations_{name}",
        title=f"Which parts of MemoryVLA's bank matter on {protocol.task.name} at a delay of {delay}?",
        base=Cell(
            model=ModelConfig(size=get_size("tiny"), chunk=1, guard="context", reserve=0),
            data=DataConfig(dataset=DatasetConfig(task=protocol.task, episodes=480)),
            memory=MemoryConfig("bank", place="fuse", capacity=CAPACITY, perceptual_width=16),
            truncation=8,
            budget=BudgetConfig(slots=16, window=8, updates=600),
            optimizer=OptimizerConfig(lr=5e-4),
        ),
        variants=ablations(CAPACITY),
        factors=FACTORS,
        seeds=(1, 2, 3, 4, 5),  # seed 0 served the choice of the learning rate
        protocols=(protocol,),
        interventions=INTERVENTIONS,
        probes=(ScheduledMeasurement(get_measurement("retrieval"), protocol, episodes=25),),
        predictions=(
            Prediction("`empty` brings the choice to chance", READ, "empty", "to_chance", where="used"),
            Prediction("`skip_read` brings the choice to chance", READ, "skip_read", "to_chance", where="used"),
            Prediction(
                "`transplant` makes the policy choose the donor's target",
                READ,
                "transplant",
                "higher",
                quantity="follow",
                versus="transplant_same",
                where="used",
            ),
            Prediction("`transplant_same` changes nothing: a sham", READ, "transplant_same", "null", where="used"),
        ),
        contrasts=Contrasts(pairs=PAIRS),
        notes=NOTES,
    )
