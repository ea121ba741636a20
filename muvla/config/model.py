"""The numbers of a model: towers and language model, checked as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from muvla.errors import MuvlaError


def require(ok: bool, field_name: str, got: Any, expected: str, remedy: str) -> None:
    if not ok:
        raise MuvlaError(field_name, got=got, expected=expected, remedy=remedy)


@dataclass(frozen=True)
class TowerConfig:
    """A vision transformer; its features are the output of the last block but one (μVLA spec 1.2)."""

    width: int
    layers: int
    heads: int
    mlp: int

    def __post_init__(self):
        _require_whole_heads("model.size tower", self.width, self.heads)
        for name in ("layers", "mlp"):
            require(getattr(self, name) >= 1, f"model.size tower: {name}", getattr(self, name), "≥ 1", "correct it")


def _require_whole_heads(where: str, width: int, heads: int, each: int = 1) -> None:
    """Every head has a multiple of `each` numbers."""
    require(
        heads >= 1 and width >= heads and width % (each * heads) == 0, f"{where}: heads", heads,
        f"a divisor of {width}/{each}, the width" if each > 1 else f"a divisor of the width, {width}",
        "change heads or width",
    )  # fmt: skip


@dataclass(frozen=True)
class SizeConfig:
    """The numbers of one anatomy; presets are in `muvla.models.sizes`."""

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
        for name in ("patch", "layers", "mlp", "vocabulary"):
            require(getattr(self, name) >= 1, f"model.size.{name}", getattr(self, name), "≥ 1", "correct it")
        _require_whole_heads("model.size", self.width, self.heads, each=2)  # rotary positions turn pairs of numbers
        require(
            self.dino.mlp % self.dino.width == 0, "model.size.dino.mlp", self.dino.mlp,
            f"a multiple of the tower's width, {self.dino.width}", "DINOv2's hidden layer is a whole multiple",
        )  # fmt: skip
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
