"""The published tables: one CSV file each, with the facts that the numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from muvla.envs.mikasa.tasks import PUBLISHED

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PublishedTable:
    """One published table.

    Attributes:
        name: the CSV file's name without extension.
        paper: the system's name.
        source: the page that the numbers stand on.
        tasks: published task → beginning of the names of our tasks. A task that is not a key has no task of ours.
        regime: how actions are executed, in words; empty where the page does not say it.
        episodes: episodes behind one number.
        measured: models that the paper itself evaluated. The episodes of all other models are not known.
        by_task: the file has a row per task; else a row per model.
        percent: numbers in per cent; else fractions.
        decimals: decimals of a printed number.
        variants: published model → our variant's name in `muvla.config.presets` and `experiments/paper_table`.
        differences: facts in which the published evaluation differs from every protocol of ours.
    """

    name: str
    paper: str
    source: str
    tasks: Mapping[str, str]
    regime: str
    episodes: int
    measured: tuple[str, ...] = ()
    by_task: bool = False
    percent: bool = True
    decimals: int = 1
    variants: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.csv"


MIKASA = {name.removesuffix("-VLA-v0"): name for name in PUBLISHED}
LIBERO = {
    "Spatial": "libero_spatial-",
    "Object": "libero_object-",
    "Goal": "libero_goal-",
    "Long-10": "libero_10-",
    "Long-90": "libero_90-",
}
BRIDGE = {
    "Spoon": "PutSpoonOnTableClothInScene-v1",
    "Carrot": "PutCarrotOnPlateInScene-v1",
    "Cube": "StackGreenCubeOnYellowCubeBakedTexInScene-v1",
    "Eggplant": "PutEggplantInBasketScene-v1",
}
MUVLA = "μVLA, arXiv 2606.12497"
MEMORYVLA = "MemoryVLA, arXiv 2508.19236, README of the code"
ONE_TRAINING = "one training of each model, as far as the page says"
BEST_CHECKPOINT = "the best of the saved checkpoints, chosen by the same benchmark"
ONE_CAMERA = "one camera, no proprio"
SIZE = "a policy of 7B parameters"
MUVLA_VARIANTS = {
    "OFT": "OFT",
    "OFT-episodic": "OFT†",
    "m1-K8": "m=1, K=8",
    "m64-K8": "m=64, K=8",
    "m64-K2": "m=64, K=2",
    "m64-K1": "m=64, K=1",
    "m64-EMA": "EMA",
    "m64-EMA-full": "EMA, guard full",
    "single-task-RC5": "RememberColor5-VLA-v0 alone",
    "OFT-first-observation": "first image",
}

TABLES = (
    PublishedTable(
        "muvla_mikasa23",
        "μVLA",
        f"{MUVLA}, table of 23 tasks",
        MIKASA,
        "",
        100,
        measured=("pi0.5", *MUVLA_VARIANTS),
        by_task=True,
        percent=False,
        decimals=2,
        variants=MUVLA_VARIANTS,
        differences=(
            "policies of 3B (π0.5) and 7B parameters",
            ONE_TRAINING,
            "K multiplies the frames of an update",
            "labels contain actions that were never executed",
            "chunks of 8 actions",
            "the regime of the models without memory is not stated",
            "one scene serves all episodes, except for the ShellGame tasks",
            "an error in an episode counts as a failure",
        ),
    ),
    PublishedTable(
        "muvla_mikasa4",
        "μVLA",
        f"{MUVLA}, table of four tasks",
        MIKASA,
        "",
        100,
        measured=("μVLA", "MemoryVLA", "CronusVLA"),  # the latter two by MemoryVLA's paper
        percent=False,
        decimals=2,
        differences=(
            SIZE,
            ONE_TRAINING,
            "the row of μVLA joins several variants: each task's best",
            "the other rows come from other papers, with other cameras, chunks and training data",
        ),
    ),
    PublishedTable(
        "muvla_libero",
        "μVLA",
        f"{MUVLA}, table of LIBERO",
        LIBERO,
        "",
        500,
        measured=("μVLA (m=64, K=8)", "μVLA (m=64, EMA)"),
        variants={"μVLA (m=64, K=8)": "m=64, K=8", "μVLA (m=64, EMA)": "EMA"},
        differences=(
            SIZE,
            ONE_TRAINING,
            "the rows of other systems come from other papers",
            "OpenVLA-OFT has one policy per suite, μVLA one policy for four suites",
        ),
    ),
    PublishedTable(
        "memoryvla_bridge",
        "MemoryVLA",
        f"{MEMORYVLA}, SimplerEnv-Bridge",
        BRIDGE,
        "a query at every step, ensemble over 7 chunks",
        24,
        measured=("MemoryVLA", "MemoryVLA+"),
        differences=(SIZE, BEST_CHECKPOINT, ONE_CAMERA, "MemoryVLA+ has another pretrained base model"),
    ),
    PublishedTable(
        "memoryvla_fractal_vm",
        "MemoryVLA",
        f"{MEMORYVLA}, SimplerEnv-Fractal, visual matching",
        {},
        "a query at every step, ensemble over 2 chunks",
        0,
        differences=(SIZE, BEST_CHECKPOINT, ONE_CAMERA, "no task of ours"),
    ),
    PublishedTable(
        "memoryvla_fractal_va",
        "MemoryVLA",
        f"{MEMORYVLA}, SimplerEnv-Fractal, variant aggregation",
        {},
        "a query at every step, ensemble over 2 chunks",
        0,
        differences=(SIZE, BEST_CHECKPOINT, ONE_CAMERA, "no task of ours"),
    ),
    PublishedTable(
        "memoryvla_libero",
        "MemoryVLA",
        f"{MEMORYVLA}, LIBERO",
        LIBERO,
        "8 of 16 predicted actions without a query",
        500,
        measured=("MemoryVLA", "MemoryVLA+", "MemoryVLA+ (mix)"),
        differences=(
            SIZE,
            BEST_CHECKPOINT,
            ONE_CAMERA,
            "pictures pass through JPEG of quality 95",
            "memory is written once per 8 steps",
            "an error in an episode counts as a failure",
        ),
    ),
    PublishedTable(
        "memoryvla_maniskill2",
        "MemoryVLA",
        f"{MEMORYVLA}, ManiSkill2",
        {"PickCube": "PickCube-v1", "StackCube": "StackCube-v1"},
        "",
        20,
        measured=("MemoryVLA+",),
        decimals=0,
        differences=(
            SIZE,
            "ManiSkill2, whose tasks differ from those of ManiSkill 3",
            "20 episodes are inferred from steps of 5 %",
            "another page of the authors prints 85, 75, 60, 85 and 45 for the same five tasks",
        ),
    ),
)


def get_table(name: str) -> PublishedTable:
    """The table of this name; KeyError for another."""
    return {table.name: table for table in TABLES}[name]
