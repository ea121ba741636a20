"""What a cell is: one fully resolved training configuration with one training seed.

Legend: m memory width, K truncation length, W window, B slots, U updates, H chunk, α blend.
The hash of a cell's canonical form, with the hash of its data, is its train id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from muvla.anatomy import SizeConfig
from muvla.anatomy import require as _require
from muvla.configtools import LATER, content_hash, flatten, identity, replace
from muvla.dataconfig import DataConfig as DataConfig  # a study takes the whole configuration from here
from muvla.dataconfig import DatasetConfig as DatasetConfig
from muvla.dataconfig import TaskConfig as TaskConfig

Guard = Literal["full", "memory_only", "context"]
Precision = Literal["float32", "bfloat16"]
BlockOrigin = Literal["window", "episode"]
SELECTIONS = ("final", "loss")  # see `Cell.selection`
ReleasedPrecision = Literal[Precision, "nf4"]  # of a released checkpoint that is evaluated


@dataclass(frozen=True)
class ModelConfig:
    size: SizeConfig
    chunk: int = 4  # H
    guard: Guard = "context"
    # RoPE positions of text and action: `shift` moves them by m as published; `reserved` by `reserve` for every m,
    # so that cells of different m (or none) see the same positions (spec 1.1).
    memory_positions: Literal["reserved", "shift"] = "reserved"
    reserve: int = 16
    attention: Literal["split", "dense", "flash", "flex", "auto"] = "split"
    # What is done to a camera's frames, in training as in evaluation: nothing (they have the model's size), Lanczos-3
    # to the model's size, or that and the central crop, which is how releases are evaluated (spec 4.3).
    images: Literal["stored", "resized", "released"] = field(default="stored", metadata=LATER)
    # bfloat16: matrix products in it, frozen matrices stored in it; what is trained stays float32.
    precision: Precision = field(default="float32", metadata=LATER)
    proprio: bool = field(default=True, metadata=LATER)  # whether there is a PROPRIO token
    head: Literal["l1", "diffusion"] = field(default="l1", metadata=LATER)  # how actions come about (spec 1.7, 1.11)
    # FiLM: the prompt's average embedding scales and shifts the tokens of every block of both towers (spec 1.10).
    film: bool = field(default=False, metadata=LATER)
    # Whether the two towers are trained, or keep their initial values, without adapters; the projector is trained.
    vision: Literal["trained", "frozen"] = field(default="trained", metadata=LATER)
    # Tokens that prompts are padded to, so that tasks of longer prompts than the data's can be evaluated; null is what
    # the data need, without padding where all have one length.
    prompt_tokens: int | None = field(default=None, metadata=LATER)

    def __post_init__(self):
        _require(self.chunk >= 1, "model.chunk", self.chunk, "H ≥ 1", "set a chunk length of at least 1")
        _require(self.reserve >= 0, "model.reserve", self.reserve, "≥ 0", "set the widest m of the study")
        _require(
            self.prompt_tokens is None or self.prompt_tokens >= 1, "model.prompt_tokens", self.prompt_tokens,
            "≥ 1 or null", "correct it",
        )  # fmt: skip


@dataclass(frozen=True)
class MemoryConfig:
    """Which mechanism, its width m and its blend α: M' = α·out + (1−α)·M."""

    kind: Literal["none", "dummy", "tokens"] = "none"
    m: int = 0
    alpha: float = 1.0
    init_std: float = 0.02  # of the learned initial memory (spec 2.1)

    def __post_init__(self):
        _require(self.m >= 0, "memory.m", self.m, "m ≥ 0", "set the number of memory tokens")
        _require(0 < self.alpha <= 1, "memory.alpha", self.alpha, "0 < α ≤ 1", "α = 1 replaces the memory outright")
        _require(self.init_std >= 0, "memory.init_std", self.init_std, "≥ 0", "set a standard deviation")


@dataclass(frozen=True)
class BudgetConfig:
    """Slots B, window W and updates U, as declared, and what a truncation length K makes of them.

    `matched`: nothing; B, W and U are the same for every cell, whatever K and α are. `matched_frames`: W = K, and as
    many updates as give the declared number of frames. `published`: W = K at the declared U, so that K multiplies the
    frames of an update and of the whole training (spec 2.4). `Cell.effective_budget` is what comes out.
    """

    slots: int = 16
    window: int = 8
    updates: int = 1500
    regime: Literal["matched", "matched_frames", "published"] = field(default="matched", metadata=LATER)

    def __post_init__(self):
        for name in ("slots", "window", "updates"):
            _require(getattr(self, name) >= 1, f"budget.{name}", getattr(self, name), "≥ 1", "set a positive number")

    @property
    def frames_per_update(self) -> int:
        """F = B·W."""
        return self.slots * self.window

    @property
    def total_frames(self) -> int:
        return self.frames_per_update * self.updates


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, linear warm-up and cosine decay; both as fractions so that they scale with U."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup: float = 0.05  # fraction of U
    final: float = 0.1  # last learning rate, fraction of lr
    clip: float | None = 1.0  # largest gradient norm; None leaves it (as published)

    def __post_init__(self):
        _require(self.lr > 0, "optimizer.lr", self.lr, "> 0", "set a learning rate")
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "optimizer.betas", self.betas,
            "two fractions in [0, 1)", "correct them",
        )  # fmt: skip
        _require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "≥ 0", "correct it")
        _require(0 <= self.warmup < 1, "optimizer.warmup", self.warmup, "a fraction in [0, 1)", "correct it")
        _require(0 <= self.final <= 1, "optimizer.final", self.final, "a fraction in [0, 1]", "correct it")
        _require(self.clip is None or self.clip > 0, "optimizer.clip", self.clip, "> 0 or null", "correct it")


@dataclass(frozen=True)
class StartConfig:
    """Where the initial values come from; what does not come from there is drawn from the training seed."""

    # A released directory, or OWNER/NAME[@REVISION] of the hub; null draws everything. A train id holds its content.
    checkpoint: str | None = None
    # `weights`: towers, projector and language model; `all`: action head, proprio projector and memory too, where the
    # checkpoint has them and the cell has a place for them.
    parts: Literal["all", "weights"] = "all"


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on every linear layer of towers, projector and language model (spec 5), without dropout."""

    rank: int = 0  # 0: no adapters, everything is trained in full
    alpha: float = 16.0  # adapters are scaled by alpha / rank

    def __post_init__(self):
        _require(self.rank >= 0, "lora.rank", self.rank, "≥ 0", "the published rank is 32; 0 trains everything in full")
        _require(self.alpha > 0, "lora.alpha", self.alpha, "> 0", "the published alpha is 16")


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
    start: StartConfig = field(default_factory=StartConfig, metadata=LATER)
    lora: LoraConfig = field(default_factory=LoraConfig, metadata=LATER)
    # What the K ticks of a block are counted from: the window's first tick, for all slots at once (as published), or
    # the first tick of each slot's own episode (`muvla.training.blocks`).
    truncation_from: BlockOrigin = field(default="window", metadata=LATER)
    # Which of the training's checkpoints is evaluated: the last, or the one before which the mean training `loss` since
    # the previous checkpoint was lowest. A factor like any other.
    selection: str = field(default="final", metadata=LATER)

    def __post_init__(self):
        for name, value in flatten(self).items():
            finite = all(math.isfinite(v) for v in (value if isinstance(value, list) else [value]) if type(v) is float)
            _require(finite, name, value, "finite numbers", "correct it")
        _require(
            self.lora.rank == 0 or self.start.checkpoint is not None, "lora.rank", self.lora.rank,
            "0 where start.checkpoint is null", "adapters change given weights: set start.checkpoint, or rank 0",
        )  # fmt: skip
        _require_sound_diffusion(self)
        _require(
            self.data.augmentation != "episode" or self.data.order != "shuffled", "data.augmentation", "episode",
            "none or frame with data.order shuffled", "single frames have no episode that could be changed as one",
        )  # fmt: skip
        _require(
            self.data.augmentation == "none" or self.model.images == "released", "model.images", self.model.images,
            "'released' with data.augmentation", "it crops the centre in evaluation, as training crops at random",
        )  # fmt: skip
        _require(
            self.selection in SELECTIONS, "selection", self.selection,
            f"{' or '.join(SELECTIONS)}: never a reading of the evaluation, because the best of several checkpoints on "
            "the test's own episodes is no estimate of anything", "declare a reading of the training",
        )  # fmt: skip
        _require(self.intervention != "none", "intervention", "none", "null or a name", "write null for none")
        _require(
            self.data.order != "shuffled" or not self.recurs, "data.order", self.data.order,
            f"episodic or grouped where memory.kind is {self.memory.kind!r} with memory.m = {self.memory.m}",
            "a shuffled frame has no tick before it to remember: set memory.kind to none or dummy",
        )  # fmt: skip
        K, budget = self.truncation, self.budget
        whole = {
            "matched": ("the window W", budget.window),
            "matched_frames": ("the ticks of a slot, W·U", budget.window * budget.updates),
        }.get(budget.regime)
        _require(
            K >= 1 and (whole is None or whole[1] % K == 0), "truncation", K,
            "K ≥ 1" if whole is None else f"a divisor K of {whole[0]} = {whole[1]}",
            "choose such a K, or another budget",
        )  # fmt: skip
        _require(
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
    _require(
        cell.data.labels != "masked", "data.labels", "masked", "executed or recorded under the head diffusion",
        "a weight of 0 does not hide a label that stands, noisy, beside the others",
    )  # fmt: skip
    _require(
        cell.data.tail == "repeat" or cell.model.chunk == 1, "data.tail", cell.data.tail,
        "repeat under the head diffusion", "slots that are never supervised would be denoised and read all the same",
    )  # fmt: skip
    _require(
        cell.model.guard == "context" or cell.memory.kind != "tokens" or cell.memory.m == 0, "model.guard",
        cell.model.guard, "context under the head diffusion with a memory", "else it carries the noisy label on",
    )  # fmt: skip


def canonical(cell: Cell) -> Cell:
    """The cell with every field that its computation does not use set to one value.

    Without recurrence, K and α change nothing; without MEMORY tokens, neither m, their scale, the guard's memory rows
    nor an intervention does. A budget regime is written as the B, W and U that it comes to. So equal computations share
    one identity, and are trained once.
    """
    changes: dict[str, Any] = {"budget": cell.effective_budget}
    without_tokens = cell.memory.kind == "none" or cell.memory.m == 0
    if not cell.recurs:
        changes |= {"memory.alpha": 1.0, "truncation": cell.budget.window}
    if not cell.recurs or cell.truncation in (
        1,
        cell.effective_budget.window,
    ):  # cut at every tick, or at windows alone
        changes["truncation_from"] = "window"
    if without_tokens:
        changes |= {"memory.kind": "none", "memory.m": 0, "memory.init_std": 0.0, "intervention": None}
        if cell.model.guard == "memory_only":
            changes["model.guard"] = "full"
    if cell.model.memory_positions == "shift":  # the positions of a reserve of exactly m
        changes |= {"model.memory_positions": "reserved", "model.reserve": 0 if without_tokens else cell.memory.m}
    if cell.start.checkpoint is None:
        changes["start.parts"] = "all"
    if cell.lora.rank == 0:
        changes["lora.alpha"] = LoraConfig().alpha
    if cell.data.order != "grouped":
        changes["data.group"] = 16
    if cell.effective_budget.updates == 1:  # no other checkpoint than the last
        changes["selection"] = "final"
    if cell.model.chunk == 1:  # no chunk entry lies past an episode's end
        changes["data.tail"] = "mask"
    if not cell.data.mixture:
        changes["data.balance"] = "episode"
    return replace(cell, changes)


def started_at(cell: Cell, place: str | None) -> Cell:
    """The cell with what it starts from at another place: a path means nothing on another machine, its content does."""
    return replace(cell, {"start.checkpoint": place})


def of_sources(cell: Cell, names: Iterable[str | None]) -> Cell:
    """The cell with its imported datasets under other names, which are no content either; collected ones have none."""
    first, *others = [
        one if one.source is None or name is None else replace(one, {"source": name})
        for one, name in zip(cell.data.datasets, names, strict=True)
    ]
    return replace(cell, {"data.dataset": first, "data.mixture": others})


def train_id(cell: Cell, data: str, start: str | None) -> str:
    """Hash of the canonical training configuration, of the data's content and of that of what the cell starts from."""
    names = [f"import-{i}" if i else "import" for i in range(len(cell.data.datasets))]
    placeless = of_sources(started_at(canonical(cell), start), names)
    return content_hash({"cell": identity(placeless), "data": data})


# --- presets: overrides for `replace`, in the field's words -----------------------------------------------------------


def no_memory() -> dict[str, Any]:
    return {"memory.kind": "none", "memory.m": 0}


def dummy(m: int) -> dict[str, Any]:
    """m learned tokens fed unchanged at every tick: more context without memory."""
    return {"memory.kind": "dummy", "memory.m": m}


def tbptt(K: int, m: int) -> dict[str, Any]:
    """Truncated backpropagation through time: the memory is replaced (α = 1), gradient crosses K−1 transitions."""
    return {"memory.kind": "tokens", "memory.m": m, "memory.alpha": 1.0, "truncation": K}


def ema(alpha: float, m: int) -> dict[str, Any]:
    """Exponential moving average, detached at every tick (spec 2.5)."""
    return {"memory.kind": "tokens", "memory.m": m, "memory.alpha": alpha, "truncation": 1}
