"""The space of a tuning: fields of a cell with the values that trials may give them.

`optimizer.lr=1e-5:1e-3:log` is a range on a logarithmic scale, `budget.updates=200:600` a range of whole numbers, and
`budget.slots=8,16` a list of choices.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from muvla.config.serialization import flatten, replace
from muvla.errors import MuvlaError, located, unknown_name
from sweeps.study import SEED, Study

OVER = "--over"
REMEDY = "write FIELD=LOW:HIGH, FIELD=LOW:HIGH:log or FIELD=A,B,C, for example optimizer.lr=1e-5:1e-3:log"
DIGITS = 4  # significant digits of a drawn number, so that a person can read and repeat a recipe

Recipe = dict[str, Any]  # dotted field → value


@dataclass(frozen=True)
class Dimension:
    """A field and its values.

    Attributes:
        name: dotted field of a cell.
        distribution: Optuna's description of the values.
    """

    name: str
    distribution: BaseDistribution

    @property
    def choices(self) -> tuple[Any, ...] | None:
        """The values of a list of choices; None for a range."""
        return self.distribution.choices if isinstance(self.distribution, CategoricalDistribution) else None

    @property
    def is_logarithmic(self) -> bool:
        return self.choices is None and self.distribution.log

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The ends of a range, or all choices."""
        return self.choices or (self.distribution.low, self.distribution.high)

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1) of the range or of the list of choices."""
        if self.choices is not None:
            return self.choices[int(share * len(self.choices))]
        low, high = self.distribution.low, self.distribution.high
        if isinstance(self.distribution, IntDistribution):
            if not self.is_logarithmic:
                return low + int(share * (high - low + 1))
            value = math.exp(math.log(low) + share * (math.log(high + 1) - math.log(low)))
            return min(high, int(value))
        if self.is_logarithmic:
            return self.rounded(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        return self.rounded(low + share * (high - low))

    def rounded(self, value: Any) -> Any:
        """A drawn number with `DIGITS` significant digits, inside the range; every other value unchanged."""
        if not isinstance(self.distribution, FloatDistribution):
            return value
        return min(self.distribution.high, max(self.distribution.low, float(f"{value:.{DIGITS}g}")))


def parse_space(study: Study, texts: Sequence[str]) -> tuple[Dimension, ...]:
    """The dimensions of `--over`, in their order.

    Args:
        study: the study whose recipe is tuned; its fields tell whole numbers from others.
        texts: values of the option.

    Raises:
        MuvlaError: no text, an unknown field, a field that defines the variants, or values that no cell takes.
    """
    if not texts:
        raise MuvlaError(OVER, got="no field", expected="at least one field to tune", remedy=REMEDY)
    fields, dimensions = flatten(study.base), []
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign:
            raise MuvlaError(OVER, got=text, expected="FIELD=VALUES", remedy=REMEDY)
        if name not in fields:
            raise unknown_name(OVER, name, fields)
        if name in [dimension.name for dimension in dimensions]:
            raise MuvlaError(OVER, got=f"{name} twice", expected="each field once", remedy="join the two into one")
        _require_recipe_field(study, name)
        dimensions.append(Dimension(name, _parse_values(name, values, fields[name])))
    for dimension in dimensions:
        with located(f"{OVER} {dimension.name}"):
            for value in dimension.extremes:
                for changes in study.variants.values():
                    replace(study.base, {**changes, dimension.name: value})
    return tuple(dimensions)


def _require_recipe_field(study: Study, name: str) -> None:
    """A field that tells the variants apart, or a seed, is no part of a recipe."""
    setters = [variant for variant, changes in study.variants.items() if name in changes]
    if setters or name == SEED or name in study.factors:
        whose = f"set by {', '.join(setters)}" if setters else "a factor of the study"
        raise MuvlaError(
            f"{OVER} {name}",
            got="the training seed" if name == SEED else f"a field that is {whose}",
            expected="a field that every variant takes from the base",
            remedy="tune another field: a trial that changes what the variants differ in would compare something else",
        )


def _parse_values(name: str, text: str, current: Any) -> BaseDistribution:
    if ":" not in text:
        choices = [_scalar(part) for part in text.split(",")]
        if len(choices) < 2 or len({json.dumps(choice) for choice in choices}) < len(choices):
            raise MuvlaError(f"{OVER} {name}", got=text, expected="at least two different choices", remedy=REMEDY)
        return CategoricalDistribution(choices)
    low, high, *scale = text.split(":")
    bounds = [_scalar(low), _scalar(high)]
    numbers = all(type(bound) in (int, float) and math.isfinite(bound) for bound in bounds)
    if not numbers or scale not in ([], ["log"]) or bounds[0] >= bounds[1] or (scale and bounds[0] <= 0):
        expected = "LOW:HIGH or LOW:HIGH:log with LOW below HIGH, and LOW above 0 under log"
        raise MuvlaError(f"{OVER} {name}", got=text, expected=expected, remedy=REMEDY)
    whole = type(current) is int or (current is None and all(type(bound) is int for bound in bounds))
    if not whole:
        return FloatDistribution(float(bounds[0]), float(bounds[1]), log=bool(scale))
    if any(bound != int(bound) for bound in bounds):
        raise MuvlaError(
            f"{OVER} {name}", got=text, expected="whole numbers", remedy="write LOW:HIGH without fractions"
        )
    return IntDistribution(int(bounds[0]), int(bounds[1]), log=bool(scale))


def _scalar(text: str) -> Any:
    """A number, true, false or null as JSON reads them; anything else is text."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if isinstance(value, list | dict) else value
