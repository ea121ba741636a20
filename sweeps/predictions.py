"""What a study expects of its interventions, written down before it runs. `analysis.paired` holds rows against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from muvla.errors import MuvlaError

Expected = Literal["null", "lower", "higher", "chance", "to_chance", "above_chance"]
Quantity = Literal["choice", "own", "success", "follow"]
Where = Literal["any", "used", "unused"]


@dataclass(frozen=True)
class Prediction:
    """Of every training seed of `variants`, under one protocol: how a quantity under `intervention` compares with the
    same episodes under `versus`, which is "none" or a sham. docs/causality.md defines the words.

    quantity  choice: own target among the episodes with a touch; own: among all; success; follow: the donor's target
    expected  null, lower, higher: the paired difference. chance, above_chance: the rate itself. to_chance: lower, and
              at chance
    where     only training seeds whose plain run chooses above chance (used), or does not (unused)
    """

    text: str
    variants: tuple[str, ...]
    intervention: str
    expected: Expected
    quantity: Quantity = "choice"
    versus: str = "none"
    where: Where = "any"
    protocol: str | None = None  # its id; None: the study's first

    def __post_init__(self):
        for name, kind in (("expected", Expected), ("quantity", Quantity), ("where", Where)):
            if getattr(self, name) not in get_args(kind):
                raise MuvlaError(
                    f"prediction {self.text!r}: {name}",
                    got=getattr(self, name),
                    expected=" or ".join(get_args(kind)),
                    remedy="correct it",
                )
        if not self.variants:
            raise MuvlaError(
                f"prediction {self.text!r}: variants", got="none", expected="at least one", remedy="add one"
            )
