"""A study: base configuration × variants × training seeds, with its protocols, interventions and probes.

Two cells of a study differ in nothing but the declared factors. `Study.check` refuses any other difference, and
`sweeps.difference.difference` shows the exact difference of two cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from muvla.config import Cell
from muvla.config.serialization import flatten, replace
from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.protocol import Protocol
from muvla.interventions import canonical_name
from muvla.interventions.perception import with_zero_perception
from muvla.probes.base import Grid, ScheduledMeasurement
from muvla.utils.names import require_name
from sweeps.applicability import require_some_variant, why_not_applicable
from sweeps.cells import StudyCell, has_memory
from sweeps.checks import (
    require_canonical_names,
    require_decidable,
    require_declared_differences,
    require_distinct,
    require_fitting,
    require_known_tasks,
)
from sweeps.contrasts import Contrasts
from sweeps.predictions import NamesVariants, Prediction
from sweeps.time_to_learn import METRIC as TIME_TO_LEARN
from sweeps.time_to_learn import TimeToLearn

SEED = "seed"  # the training seed differs between cells without being a factor


@dataclass(frozen=True)
class Study(NamesVariants):
    """One question, asked as a controlled comparison.

    Attributes:
        name: names the report's files; letters, digits and underscores are safe everywhere.
        title: the question in one line.
        base: configuration that every variant starts from.
        variants: name → overrides of `base`, dotted field → value.
        factors: dotted fields that variants may change.
        seeds: training seeds.
        protocols: evaluations, as `get_protocol("recall-position3-rh@1")`, or a `Protocol` with a new name; a study
            without one collects demonstrations and sweeps nothing.
        interventions: canonical names, applied to every cell with a memory.
        probes: grids and measurements.
        predictions: written before the run; the report says what became of each.
        contrasts: pairs of variants, the primary metric and the test over training seeds; by default every variant
            against the variant that equals the base.
        time_to_learn: updates of every training after which success is measured; None without.
        notes: printed with the results: what they can and cannot show.
    """

    name: str
    title: str
    base: Cell
    variants: dict[str, dict[str, Any]]
    factors: tuple[str, ...]
    seeds: tuple[int, ...]
    protocols: tuple[Protocol, ...]
    interventions: tuple[str, ...] = ()
    probes: tuple[Grid | ScheduledMeasurement, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    contrasts: Contrasts = field(default_factory=Contrasts)
    time_to_learn: TimeToLearn | None = None
    notes: str = field(default="", repr=False)

    def __post_init__(self):
        require_name(self.name, "study.name")
        where, fields = f"study {self.name}", _fields(self.base, self.variants, self.factors)
        for factor in self.factors:
            if factor not in fields:
                raise unknown_name(f"{where}, factors", factor, fields)
        for name, values in (("variants", self.variants), ("seeds", self.seeds)):
            if not values:
                raise MuvlaError(f"{where}, {name}", got="nothing", expected="at least one", remedy="add one")
        require_canonical_names(f"{where}, interventions", self.interventions)
        object.__setattr__(self, "predictions", tuple(prediction.canonical() for prediction in self.predictions))
        _ = self.grid_conditions  # raises for an intervention that is unknown
        _ = self.contrast_pairs  # raises for a variant that is unknown
        if self.contrasts.primary == TIME_TO_LEARN and self.time_to_learn is None:
            raise MuvlaError(
                f"{where}, contrasts.primary",
                got=f"{TIME_TO_LEARN} in a study that measures no time to learn",
                expected="a study with the field time_to_learn, or another primary metric",
                remedy="add time_to_learn=TimeToLearn(protocol, updates), or take success",
            )
        ids = [(p.id, p.protocol.id if isinstance(p, ScheduledMeasurement) else None) for p in self.probes]
        if twice := [name for name, protocol in ids if ids.count((name, protocol)) > 1]:
            raise MuvlaError(
                f"{where}, probes", got=f"{twice[0]} twice", expected="each probe once", remedy="remove one of the two"
            )

    @cached_property
    def grid_conditions(self) -> list[tuple[Protocol, str]]:
        """(protocol, intervention) of every point of the grids among the probes."""
        grids = [probe for probe in self.probes if isinstance(probe, Grid)]
        return [(point.protocol, canonical_name(point.intervention)) for grid in grids for point in grid.points]

    @cached_property
    def every_intervention(self) -> tuple[str, ...]:
        """The interventions of the study and of its grids, each once."""
        of_grids = (name for _, name in self.grid_conditions if name != "none")
        return tuple(dict.fromkeys([*self.interventions, *of_grids]))

    @cached_property
    def measurements(self) -> tuple[ScheduledMeasurement, ...]:
        """The probes that read the state of a model."""
        return tuple(probe for probe in self.probes if isinstance(probe, ScheduledMeasurement))

    @property
    def every_protocol(self) -> tuple[Protocol, ...]:
        """The protocols of the study, of its probes and of its time to learn, each once."""
        learning = self.time_to_learn
        during = [] if learning is None else [learning.protocol, *learning.protocols.values()]
        return tuple(dict.fromkeys([*self._protocols_after_training, *during]))

    @property
    def _protocols_after_training(self) -> tuple[Protocol, ...]:
        of_grids = [protocol for protocol, _ in self.grid_conditions]
        of_measurements = [measurement.protocol for measurement in self.measurements]
        return tuple(dict.fromkeys([*self.protocols, *of_grids, *of_measurements]))

    @property
    def baseline_protocols(self) -> tuple[Protocol, ...]:
        """The protocols whose baselines a report needs: a time to learn is measured against the expert's success."""
        return self.protocols if self.time_to_learn is None else (*self.protocols, self.time_to_learn.protocol)

    def cells(self) -> list[StudyCell]:
        """Training seeds are the outer loop: a run that is cut short has whole seeds, not whole variants."""
        return list(self._cells)

    @cached_property
    def _cells(self) -> tuple[StudyCell, ...]:
        base = replace(self.base, {})  # read once, so that a variant reads its changes alone
        variants = {variant: replace(base, changes) for variant, changes in self.variants.items()}
        return tuple(
            StudyCell(variant, replace(cell, {SEED: seed})) for seed in self.seeds for variant, cell in variants.items()
        )

    @property
    def of_one_seed(self) -> list[StudyCell]:
        """The cells of the first training seed: one for every variant. A check that no seed changes needs no more."""
        return self.cells()[: len(self.variants)]

    @property
    def reference(self) -> str:
        """The variant that contrasts compare with by default: the one that equals the base, or the first."""
        base = flatten(self.base)
        same = (v for v, changes in self.variants.items() if all(base.get(k) == x for k, x in changes.items()))
        return next(same, next(iter(self.variants)))

    @property
    def contrast_pairs(self) -> tuple[tuple[str, str], ...]:
        """(variant, reference) of every planned contrast. Raises MuvlaError for an unknown variant, metric or test."""
        return self.contrasts.resolve(f"study {self.name}", self.variants, self.reference, len(self.seeds))

    def interventions_of(self, cell: Cell) -> tuple[str, ...]:
        """The study's interventions on a cell; a cell with perceptual tokens always has `zero_perception`."""
        return with_zero_perception(self.interventions, cell.memory.perceives)

    def conditions(self, cell: Cell) -> Iterator[tuple[Protocol, str]]:
        """(protocol, intervention) of every evaluation of a cell, each once.

        For each protocol the plain run comes first, then the interventions; the points of grids follow, and then the
        plain runs of earlier weights. A cell without a memory has plain runs alone, and an intervention that its
        mechanism cannot take is left out (`sweeps.applicability`).
        """
        for protocol, name in self._conditions[cell.memory.perceives]:
            if not why_not_applicable(cell, name):
                yield protocol, name
        if self.time_to_learn is not None:
            for update in self.time_to_learn.updates_of(cell):
                yield self.time_to_learn.protocols[update], "none"

    @cached_property
    def _conditions(self) -> dict[bool, tuple[tuple[Protocol, str], ...]]:
        """Conditions of the cells with perceptual tokens (True) and of the other cells."""

        def of(perceives: bool) -> tuple[tuple[Protocol, str], ...]:
            names = ("none", *with_zero_perception(self.interventions, perceives))
            declared = [(protocol, name) for protocol in self.protocols for name in names]
            return tuple(dict.fromkeys(declared + self.grid_conditions))

        return {perceives: of(perceives) for perceives in (False, True)}

    def measurements_of(self, cell: Cell) -> list[ScheduledMeasurement]:
        """The measurements that this cell's memory allows."""
        return [
            scheduled
            for scheduled in self.measurements
            if (has_memory(cell) or not scheduled.measurement.needs_memory)
            and (cell.recurs or not scheduled.measurement.needs_recurrence)
            and (cell.memory.searched_times or not scheduled.measurement.needs_times)
        ]

    def check(self) -> None:
        """Refuses a study that is not controlled, or that cannot be run, before hours are spent on training.

        Raises MuvlaError, with the difference, if two cells differ in an undeclared field or are one computation. Also
        raises MuvlaError for an unknown task, for a protocol that does not fit a cell, and for a prediction about a
        condition that the study does not run.
        """
        where, cells = f"study {self.name}", self.of_one_seed
        require_known_tasks([*self.every_protocol], cells)
        require_some_variant(where, cells, self.every_intervention)
        require_fitting(where, self.protocols, self.every_protocol, cells)
        if self.time_to_learn is not None:
            trained = [item.cell for item in cells]
            self.time_to_learn.require_possible(where, trained, self._protocols_after_training)
        conditions = {item.variant: {(p.id, name) for p, name in self.conditions(item.cell)} for item in cells}
        require_decidable(where, self.predictions, conditions, self.protocols[0].id if self.protocols else "none")
        require_canonical_names(f"{where}, intervention", {item.cell.intervention for item in cells} - {None})
        require_declared_differences(where, self.base, (*self.factors, SEED), cells)
        require_distinct(where, cells if len(set(self.seeds)) == len(self.seeds) else self.cells())

    def with_base(self, changes: dict[str, Any]) -> Study:
        """The same study on a changed base. Raises MuvlaError for a field that a variant sets too: the variant's value
        would override the change."""
        for field_name in changes:
            variants = [variant for variant, overrides in self.variants.items() if field_name in overrides]
            if variants or field_name == SEED:
                raise MuvlaError(
                    f"--set {field_name}",
                    got=f"a field that is set by {', '.join(variants) or 'the training seeds'}",
                    expected="a field that all variants take from the base",
                    remedy="change the variants in the study file",
                )
        return dataclasses.replace(self, base=replace(self.base, changes))

    def narrowed(self, seeds: tuple[int, ...] | None = None, variants: tuple[str, ...] | None = None) -> Study:
        """The same study restricted to some of its seeds or variants. Raises MuvlaError for one that it lacks."""
        for option, wanted, names in (("--seeds", seeds, self.seeds), ("--variant", variants, self.variants)):
            for name in wanted or ():
                if name not in names:
                    raise unknown_name(option, name, map(str, names))
        kept = {name: changes for name, changes in self.variants.items() if variants is None or name in variants}
        predictions = [
            dataclasses.replace(prediction, variants=left)
            for prediction in self.predictions
            if (left := tuple(variant for variant in prediction.variants if variant in kept))
        ]
        contrasts = self.contrasts.narrowed(kept, len(seeds or self.seeds))
        fields = _fields(self.base, kept, self.factors)  # the fields of a mechanism may leave with its variants
        return dataclasses.replace(
            self,
            seeds=seeds or self.seeds,
            variants=kept,
            factors=tuple(factor for factor in self.factors if factor in fields),
            predictions=tuple(predictions),
            contrasts=contrasts,
        )


def _fields(base: Cell, variants: dict[str, dict[str, Any]], factors: tuple[str, ...]) -> set[str]:
    """The dotted fields that a study may vary: those of its base, and of the mechanisms of its variants."""
    fields = set(flatten(base))
    if not fields >= set(factors):  # a variant of another mechanism has further fields
        fields |= {name for changes in variants.values() for name in flatten(replace(base, changes))}
    return fields - {SEED}
