"""Predictions about interventions, written down before a study runs. `analysis` compares rows with them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from muvla.errors import MuvlaError, unknown_name
from muvla.interventions import canonical_name

Expected = Literal["null", "lower", "higher", "chance", "to_chance", "above_chance"]
Quantity = Literal["choice", "own", "success", "touch", "follow"]
Where = Literal["any", "used", "unused"]


class NamesVariants:
    """A base that answers the former word `arms` with the word `variants`."""

    def __new__(cls, *arguments: Any, **fields: Any):
        if "arms" in fields:
            raise MuvlaError(
                f"{cls.__name__}: arms", got="the field `arms`", expected="`variants`", remedy="write variants=…"
            )
        return super().__new__(cls)


@dataclass(frozen=True)
class Prediction(NamesVariants):
    """How a quantity under `intervention` compares with the same episodes under `versus`, over the training seeds.

    docs/causality.md defines the words, and when a prediction is supported, refuted or undecided.

    Attributes:
        text: the prediction in words.
        variants: the variants that it is about.
        intervention: name of the intervention.
        expected: "null", "lower" and "higher" are about the paired difference; "chance" and "above_chance" about the
            rate itself; "to_chance" means lower, and at chance.
        quantity: "choice" is the correct target among the episodes with a touch, "own" the correct target among all
            episodes, "success" the success rate, "touch" any touch, "follow" the donor's target.
        versus: "none", or the sham of the intervention.
        where: "used" takes only training seeds whose plain run chooses above chance, "unused" only the others.
        protocol: id of the protocol; None is the first protocol of the study.
    """

    text: str
    variants: tuple[str, ...]
    intervention: str
    expected: Expected
    quantity: Quantity = "choice"
    versus: str = "none"
    where: Where = "any"
    protocol: str | None = None

    def __post_init__(self):
        for name, words in (("expected", Expected), ("quantity", Quantity), ("where", Where)):
            if getattr(self, name) not in get_args(words):
                raise unknown_name(f"prediction {self.text!r}: {name}", getattr(self, name), get_args(words))
        if not self.variants:
            raise MuvlaError(
                f"prediction {self.text!r}: variants",
                got="none",
                expected="at least one",
                remedy="name the variants of the study that the prediction is about",
            )

    def canonical(self) -> Prediction:
        """The same prediction with the canonical names of its interventions."""
        names = {name: canonical_name(getattr(self, name)) for name in ("intervention", "versus")}
        return dataclasses.replace(self, **names)
