"""A cell: one fully resolved training configuration with one training seed.

Legend: m memory width, K truncation length, W window, B slots, U updates, H chunk, α blend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

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
    """One training: model, data, memory, truncation, budget, optimizer, intervention and seed."""

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
    # The K ticks of a block are counted from the window's first tick, for all slots at once (as published), or from the
    # first tick of each slot's episode (`muvla.training.truncation`).
    truncation_from: BlockOrigin = field(default="window", metadata=ADDED_LATER)
    # The checkpoint that is evaluated: the last (`final`), or the checkpoint with the lowest mean training `loss` since
    # the checkpoint before it. A factor like any other.
    selection: str = field(default="final", metadata=ADDED_LATER)

    def __post_init__(self):
        _require_finite(self)
        _require_adapters_fit(self)
        _require_sound_diffusion(self)
        _require_augmentation_fits(self)
        _require_images_fit(self)
        _require_selection(self)
        _require_padded_prompts(self)
        require(self.intervention != "none", "intervention", "none", "null or a name", "write null for none")
        self.memory.require_compatible(self.data, self.model)
        _require_whole_blocks(self)

    @property
    def recurs(self) -> bool:
        """True where anything is carried from tick to tick."""
        return self.memory.recurs

    @property
    def start_place(self) -> str | None:
        """The place of the starting checkpoint, with the training seed in the place of `{seed}`."""
        place = self.start.checkpoint
        return None if place is None else place.replace("{seed}", str(self.seed))

    @property
    def block_length(self) -> int:
        """Ticks of a truncation block: K, or 1 for a memory that recurs and stores detached copies."""
        return 1 if self.memory.recurs and not self.memory.gradient_crosses else self.truncation

    @property
    def effective_budget(self) -> BudgetConfig:
        """B, W and U of the computation, in the words of the regime `matched`.

        Where no gradient crosses ticks, no K can change a budget: every regime gives the declared one.
        """
        budget, K = self.budget, self.truncation
        if not self.memory.gradient_crosses or budget.regime == "matched":
            return BudgetConfig(budget.slots, budget.window, budget.updates)
        updates = budget.updates if budget.regime == "published" else budget.window * budget.updates // K
        return BudgetConfig(budget.slots, K, updates)


def _require_finite(cell: Cell) -> None:
    if _is_finite(cell):  # without the names of the fields, which an error alone needs
        return
    for name, value in flatten(cell).items():
        numbers = [n for n in (value if isinstance(value, list) else [value]) if type(n) is float]
        require(all(map(math.isfinite, numbers)), name, value, "finite numbers", "set a finite number")


def _is_finite(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (tuple, list):
        return all(map(_is_finite, value))
    return not is_dataclass(value) or all(_is_finite(getattr(value, name)) for name in value.__dataclass_fields__)


def _require_adapters_fit(cell: Cell) -> None:
    require(
        cell.lora.rank == 0 or cell.start.checkpoint is not None,
        "lora.rank",
        cell.lora.rank,
        "0 where start.checkpoint is null",
        "adapters change given weights: set start.checkpoint, or rank 0",
    )


def _require_sound_diffusion(cell: Cell) -> None:
    """Checks labels and tail under a head that denoises: in training it sees the labels, with noise.

    A label that must not be seen must not stand there. `MemoryConfig.require_compatible` checks that no memory carries
    a label on.
    """
    if cell.model.head == "l1":
        return
    require(
        cell.data.labels != "masked",
        "data.labels",
        "masked",
        f"executed or recorded under the head {cell.model.head}",
        "a weight of 0 does not hide a label that stands, noisy, beside the others: set data.labels to executed",
    )
    require(
        cell.data.tail != "mask" or cell.model.chunk == 1,
        "data.tail",
        cell.data.tail,
        f"repeat or still under the head {cell.model.head}",
        "slots that are never supervised would be denoised and read all the same: set data.tail to repeat or still",
    )


def _require_augmentation_fits(cell: Cell) -> None:
    require(
        cell.data.augmentation != "episode" or cell.data.order != "shuffled",
        "data.augmentation",
        "episode",
        "none or frame with data.order shuffled",
        "single frames have no episode that could be changed as one: set data.augmentation to none or frame",
    )
    require(
        cell.data.augmentation == "none" or cell.model.images == "released",
        "model.images",
        cell.model.images,
        "'released' with data.augmentation",
        "set model.images to released, which crops the centre in evaluation, as training crops at random",
    )


def _require_images_fit(cell: Cell) -> None:
    """Frames that no preparation resizes must be stored in the model's size."""
    for dataset in cell.data.datasets:
        require(
            cell.model.images != "stored" or dataset.image_size in (None, cell.model.size.image_size),
            "data.dataset.image_size",
            dataset.image_size,
            f"{cell.model.size.image_size}, the model's size, or null, with model.images stored",
            "set model.images to resized, or store frames of the model's size",
        )


def _require_padded_prompts(cell: Cell) -> None:
    """A target in words makes prompts longer, so a study declares one length for all of its cells."""
    require(
        cell.data.instruction == "task" or cell.model.prompt_tokens is not None,
        "model.prompt_tokens",
        None,
        "a number of tokens with data.instruction with_target",
        "set model.prompt_tokens in the base of the study, so that the prompts of all variants are padded alike",
    )


def _require_selection(cell: Cell) -> None:
    require(
        cell.selection in SELECTIONS,
        "selection",
        cell.selection,
        f"{' or '.join(SELECTIONS)}: never a result of the evaluation, because the best of several checkpoints on the "
        "test's episodes is no estimate of anything",
        "select by a quantity of the training",
    )


def _require_whole_blocks(cell: Cell) -> None:
    """K must divide the ticks that its blocks are cut from."""
    K, budget = cell.truncation, cell.budget
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
