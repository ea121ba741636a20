"""Configuration of a policy: vision towers, language model, action head, adapters and initial weights.

Legend: D width of the language model, H chunk, P patches, m memory width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from muvla.config.expert import ExpertConfig
from muvla.config.serialization import ADDED_LATER
from muvla.config.validation import require


@dataclass(frozen=True)
class TowerConfig:
    """A vision transformer; its features are the output of the last but one block (μVLA spec 1.2)."""

    width: int
    layers: int
    heads: int
    mlp: int

    def __post_init__(self):
        for name in ("width", "heads", "layers", "mlp"):
            _require_buildable(f"model.size tower: {name}", getattr(self, name), MOST[name])
        _require_whole_heads("model.size tower", self.width, self.heads)


# Largest sizes. A number of a damaged file must not make a process build layers until its memory ends.
MOST = {
    "layers": 1024,
    "heads": 2**12,
    "width": 2**17,
    "mlp": 2**37,
    "vocabulary": 2**22,
    "patch": 2**12,
    "image_size": 2**13,
}


def _require_buildable(where: str, value: int, most: int) -> None:
    require(1 <= value <= most, where, value, f"a number from 1 to {most}", "set a number in this range")


def _require_whole_heads(where: str, width: int, heads: int, each: int = 1) -> None:
    """Checks that the width divides into heads of a multiple of `each` numbers."""
    require(
        heads >= 1 and width >= heads and width % (each * heads) == 0,
        f"{where}: heads",
        heads,
        f"a divisor of {width}/{each}, the width" if each > 1 else f"a divisor of the width, {width}",
        "change heads or width",
    )


@dataclass(frozen=True)
class SizeConfig:
    """The sizes of one model; presets are in `muvla.config.sizes`."""

    name: str
    image_size: int  # pixels, square
    patch: int  # pixels, square
    dino: TowerConfig
    siglip: TowerConfig
    width: int  # D, of the language model
    layers: int
    heads: int
    mlp: int
    vocabulary: int

    def __post_init__(self):
        for name, most in MOST.items():
            _require_buildable(f"model.size.{name}", getattr(self, name), most)
        _require_whole_heads("model.size", self.width, self.heads, each=2)  # rotary positions turn pairs of numbers
        require(
            self.dino.mlp % self.dino.width == 0,
            "model.size.dino.mlp",
            self.dino.mlp,
            f"a multiple of the tower's width, {self.dino.width}",
            "change dino.mlp or dino.width: DINOv2's hidden layer is a whole multiple of its width",
        )
        require(
            self.image_size >= 1 and self.image_size % self.patch == 0,
            "model.size.image_size",
            self.image_size,
            f"a multiple of the patch, {self.patch}",
            "change image_size or patch",
        )

    @property
    def patches(self) -> int:
        """P, vision tokens per camera."""
        return (self.image_size // self.patch) ** 2


Guard = Literal["full", "memory_only", "context"]
Precision = Literal["float32", "bfloat16"]
ReleasedPrecision = Literal[Precision, "nf4"]  # of a released checkpoint that is evaluated


@dataclass(frozen=True)
class ModelConfig:
    """The policy's architecture and precision."""

    size: SizeConfig
    chunk: int = 4  # H
    guard: Guard = "context"
    # RoPE positions of text and action. `shift` moves them by m, as published. `reserved` moves them by `reserve` for
    # every m, so that cells of different m, and cells without memory, have the same positions (spec 1.1).
    memory_positions: Literal["reserved", "shift"] = "reserved"
    reserve: int = 16
    attention: Literal["split", "dense", "flash", "flex", "auto"] = "split"
    # Preparation of a camera's frames, in training as in evaluation. `stored`: none, they have the model's size.
    # `resized`: Lanczos-3 to the model's size. `released`: resized, then the central crop, as releases are evaluated
    # (spec 4.3).
    images: Literal["stored", "resized", "released"] = field(default="stored", metadata=ADDED_LATER)
    # bfloat16: matrix products and frozen matrices have this dtype; trained parameters stay float32.
    precision: Precision = field(default="float32", metadata=ADDED_LATER)
    proprio: bool = field(default=True, metadata=ADDED_LATER)  # True: the sequence has a PROPRIO token
    # Actions are predicted directly, or denoised by the language model (spec 1.7, 1.11), or denoised by an expert of
    # its own weights behind the language model. An expert's sequence has no ACTION tokens (MemoryVLA spec 3).
    head: Literal["l1", "diffusion", "expert"] = field(default="l1", metadata=ADDED_LATER)
    expert: ExpertConfig = field(default_factory=ExpertConfig, metadata=ADDED_LATER)  # for the head `expert`
    # True: a token of the language model sees only the tokens before it, as in CogACT; for the head `expert`.
    causal: bool = field(default=False, metadata=ADDED_LATER)
    # FiLM: the prompt's average embedding scales and shifts the tokens of every block of both towers (spec 1.10).
    film: bool = field(default=False, metadata=ADDED_LATER)
    # `frozen`: the two towers keep their initial values and have no adapters; the projector is trained in either case.
    vision: Literal["trained", "frozen"] = field(default="trained", metadata=ADDED_LATER)
    # Number of tokens that prompts are padded to, so that tasks with longer prompts than the data's can be evaluated.
    # Null is the number that the data need, without padding where all prompts have one length.
    prompt_tokens: int | None = field(default=None, metadata=ADDED_LATER)
    # Parameters of DINOv2's class token. `two`: the token, and its position, which the published tower lacks. `one`, as
    # published: the position keeps its value. The two differ only where the towers are trained in full.
    class_token: Literal["two", "one"] = field(default="two", metadata=ADDED_LATER)

    def __post_init__(self):
        require(self.chunk >= 1, "model.chunk", self.chunk, "H ≥ 1", "set a chunk length of at least 1")
        require(self.reserve >= 0, "model.reserve", self.reserve, "≥ 0", "set the widest m of the study")
        require(
            not self.causal or self.head == "expert",
            "model.causal",
            self.causal,
            f"false with model.head {self.head}, whose ACTION tokens see each other",
            "set model.head to expert, or model.causal to false",
        )
        require(
            self.prompt_tokens is None or self.prompt_tokens >= 1,
            "model.prompt_tokens",
            self.prompt_tokens,
            "≥ 1 or null",
            "set a number of tokens, or null for what the data need",
        )


@dataclass(frozen=True)
class StartConfig:
    """The source of initial values; all other values are drawn from the training seed."""

    # A released directory, OWNER/NAME[@REVISION] of the hub, or the run folder of a finished training here; null draws
    # everything. `{seed}` in a path stands for the training seed. The train id holds the content.
    checkpoint: str | None = None
    # `weights`: towers, projector and language model. `all`: action head, proprio projector and memory too, where the
    # checkpoint and the cell both have them.
    parts: Literal["all", "weights"] = "all"


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on every linear layer of towers, projector and language model (spec 5), without dropout."""

    rank: int = 0  # 0: no adapters, everything is trained in full
    alpha: float = 16.0  # adapters are scaled by alpha / rank
    # True, as published: the convolution of both towers' patch embedding has an adapter, too.
    patches: bool = field(default=False, metadata=ADDED_LATER)

    def __post_init__(self):
        require(
            self.rank >= 0,
            "lora.rank",
            self.rank,
            "≥ 0",
            "set 32, the published rank, or 0, which trains everything in full",
        )
        require(
            0 < self.alpha <= 1000 * max(1, self.rank),
            "lora.alpha",
            self.alpha,
            "0 < α ≤ 1000 · lora.rank",
            "set a positive number; the published alpha is 16",
        )
