"""A cell: one fully resolved training configuration with one training seed.

Legend: m memory width, K truncation length, W window, B slots, U updates, H chunk, α blend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from muvla.config.budget import BudgetConfig, OptimizerConfig
from muvla.config.data import DataConfig
from muvla.config.memory import MemoryConfig
from muvla.config.model import LoraConfig, ModelConfig, StartConfig
from muvla.config.serialization import ADDED_LATER, flatten
from muvla.config.validation import require

BlockOrigin = Literal["window", "episode"]
SELECTIONS = ("final", "loss")  # see `Cell.selection`


@dataclass(frozen=True)
class Cell:
    model: ModelConfig
    data: DataConfig
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    truncation: int = 1  # K, ticks per truncation block
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    intervention: str | None = None  # applied to the memory during training; null is none
    seed: int = 0  # training seed
    start: StartConfig = field(default_factory=StartConfig, metadata=ADDED_LATER)
    lora: LoraConfig = field(default_factory=LoraConfig, metadata=ADDED_LATER)
    # What the K ticks of a block are counted from: the window's first tick, for all slots at once (as published), or
    # the first tick of each slot's own episode (`muvla.training.truncation`).
    truncation_from: BlockOrigin = field(default="window", metadata=ADDED_LATER)
    # Which of the training's checkpoints is evaluated: the last, or the one before which the mean training `loss` since
    # the previous checkpoint was lowest. A factor like any other.
    selection: str = field(default="final", metadata=ADDED_LATER)

    def __post_init__(self):
        for name, value in flatten(self).items():
            finite = all(math.isfinite(v) for v in (value if isinstance(value, list) else [value]) if type(v) is float)
            require(finite, name, value, "finite numbers", "correct it")
        require(
            self.lora.rank == 0 or self.start.checkpoint is not None,
            "lora.rank",
            self.lora.rank,
            "0 where start.checkpoint is null",
            "adapters change given weights: set start.checkpoint, or rank 0",
        )
        _require_sound_diffusion(self)
        require(
            self.data.augmentation != "episode" or self.data.order != "shuffled",
            "data.augmentation",
            "episode",
            "none or frame with data.order shuffled",
            "single frames have no episode that could be changed as one",
        )
        require(
            self.data.augmentation == "none" or self.model.images == "released",
            "model.images",
            self.model.images,
            "'released' with data.augmentation",
            "it crops the centre in evaluation, as training crops at random",
        )
        require(
            self.selection in SELECTIONS,
            "selection",
            self.selection,
            f"{' or '.join(SELECTIONS)}: never a reading of the evaluation, because the best of several checkpoints on "
            "the test's own episodes is no estimate of anything",
            "declare a reading of the training",
        )
        require(self.intervention != "none", "intervention", "none", "null or a name", "write null for none")
        require(
            self.data.order != "shuffled" or not self.recurs,
            "data.order",
            self.data.order,
            f"episodic or grouped where memory.kind is {self.memory.kind!r} with memory.m = {self.memory.m}",
            "a shuffled frame has no tick before it to remember: set memory.kind to none or dummy",
        )
        K, budget = self.truncation, self.budget
        whole = {
            "matched": ("the window W", budget.window),
            "matched_frames": ("the ticks of a slot, W·U", budget.window * budget.updates),
        }.get(budget.regime)
        require(
            K >= 1 and (whole is None or whole[1] % K == 0),
            "truncation",
            K,
            "K ≥ 1" if whole is None else f"a divisor K of {whole[0]} = {whole[1]}",
            "choose such a K, or another budget",
        )
        require(
            self.model.memory_positions == "shift" or self.memory.m <= self.model.reserve,
            "model.reserve",
            self.model.reserve,
            f"at least memory.m = {self.memory.m}",
            "raise model.reserve for the whole study, or set memory_positions to shift",
        )

    @property
    def recurs(self) -> bool:
        """Whether anything is carried from tick to tick; where nothing is, K and α mean nothing."""
        return self.memory.kind == "tokens" and self.memory.m > 0

    @property
    def effective_budget(self) -> BudgetConfig:
        """B, W and U of the computation, in the words of the regime `matched`.

        Without recurrence there is no K that could change a budget: it is the declared one under every regime.
        """
        budget, K = self.budget, self.truncation
        if not self.recurs or budget.regime == "matched":
            return BudgetConfig(budget.slots, budget.window, budget.updates)
        updates = budget.updates if budget.regime == "published" else budget.window * budget.updates // K
        return BudgetConfig(budget.slots, K, updates)


def _require_sound_diffusion(cell: Cell) -> None:
    """In training the ACTION slots of a diffusion head hold the labels, with noise: what must not be seen must not be
    there, and what is there must not be carried on."""
    if cell.model.head != "diffusion":
        return
    require(
        cell.data.labels != "masked",
        "data.labels",
        "masked",
        "executed or recorded under the head diffusion",
        "a weight of 0 does not hide a label that stands, noisy, beside the others",
    )
    require(
        cell.data.tail == "repeat" or cell.model.chunk == 1,
        "data.tail",
        cell.data.tail,
        "repeat under the head diffusion",
        "slots that are never supervised would be denoised and read all the same",
    )
    require(
        cell.model.guard == "context" or cell.memory.kind != "tokens" or cell.memory.m == 0,
        "model.guard",
        cell.model.guard,
        "context under the head diffusion with a memory",
        "else it carries the noisy label on",
    )
