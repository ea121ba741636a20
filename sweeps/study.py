"""A study: base configuration × variants × training seeds, with its protocols and interventions.

Between two cells of a study nothing differs but the declared factors; `Study.check` refuses anything else, and
`certificate` shows the exact difference of any two cells.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muvla.checkpoints.build import prompts_of, start_content
from muvla.config import Cell, DatasetConfig, canonical, identity, started_at
from muvla.config.serialization import content_hash, difference, flatten, replace
from muvla.data.store import EpisodeStore
from muvla.envs.registry import TaskInfo, task_info
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import PROTOCOLS, Protocol, require_decisions
from muvla.interventions import canonical_name
from muvla.models.prompts import Prompts
from muvla.probes.base import Grid, ScheduledMeasurement
from sweeps.predictions import Prediction

SEED = "seed"  # the training seed differs between cells without being a factor


@dataclass(frozen=True)
class StudyCell:
    variant: str
    cell: Cell

    @property
    def label(self) -> str:
        return f"{self.variant}, seed {self.cell.seed}"


@dataclass(frozen=True)
class Study:
    """`variants` maps a name to overrides of `base`; `factors` are the dotted fields that variants may change."""

    name: str
    title: str
    base: Cell
    variants: dict[str, dict[str, Any]]
    factors: tuple[str, ...]
    seeds: tuple[int, ...]
    protocols: tuple[Protocol, ...]  # `get_protocol("recall-position3-rh@1")`, or one of your own
    interventions: tuple[str, ...] = ()
    probes: tuple[Grid | ScheduledMeasurement, ...] = ()
    predictions: tuple[Prediction, ...] = ()  # written before the run; the report says what became of each
    notes: str = field(default="", repr=False)  # printed with the results: what they can and cannot show

    def __post_init__(self):
        known = flatten(self.base)
        for factor in self.factors:
            if factor not in known or factor == SEED:
                raise MuvlaError(
                    f"study {self.name}, factor",
                    got=factor,
                    expected=", ".join(sorted(set(known) - {SEED})),
                    remedy="declare a field of the cell",
                )
        for name, values in (("variants", self.variants), ("seeds", self.seeds), ("protocols", self.protocols)):
            if not values:
                raise MuvlaError(f"study {self.name}, {name}", got="nothing", expected="at least one", remedy="add one")
        for name in self.interventions:
            if name != (one := canonical_name(name)):
                raise MuvlaError(
                    f"study {self.name}, interventions", got=name, expected=f"its one name, {one}", remedy="write that"
                )
        object.__setattr__(self, "predictions", tuple(_canonical(one) for one in self.predictions))
        _ = self.points  # their names too
        ids = [(one.id, one.protocol.id if isinstance(one, ScheduledMeasurement) else None) for one in self.probes]
        if twice := [one for one in ids if ids.count(one) > 1]:
            raise MuvlaError(
                f"study {self.name}, probes", got=f"{twice[0][0]} twice", expected="each once", remedy="remove one"
            )

    @property
    def points(self) -> list[tuple[Protocol, str]]:
        """(protocol, intervention) of the grids among the probes."""
        grids = [one for one in self.probes if isinstance(one, Grid)]
        return [(p.protocol, canonical_name(p.intervention)) for one in grids for p in one.points]

    @property
    def reads(self) -> tuple[ScheduledMeasurement, ...]:
        return tuple(one for one in self.probes if isinstance(one, ScheduledMeasurement))

    @property
    def every_protocol(self) -> tuple[Protocol, ...]:
        """Its own, and those of its probes."""
        return tuple(
            dict.fromkeys([*self.protocols, *(p for p, _ in self.points), *(one.protocol for one in self.reads)])
        )

    def cells(self) -> list[StudyCell]:
        """Training seeds are the outer loop: a run that is cut short has whole seeds, not whole variants."""
        return [
            StudyCell(variant, replace(self.base, {**changes, SEED: seed}))
            for seed in self.seeds
            for variant, changes in self.variants.items()
        ]

    def check(self) -> None:
        """Raises MuvlaError, with the difference, if two cells differ in an undeclared field or have one identity; for
        an unknown task; and for a protocol that does not fit a cell, before hours are spent on training it."""
        cells = self.cells()
        self._check_protocols(cells)
        tasks = {one.task.name for c in cells for one in c.cell.data.datasets}
        for name in tasks | {p.task.name for p in self.every_protocol}:
            task_info(name)
        require_decisions(self.protocols)
        self._check_predictions(cells)
        for name in {c.cell.intervention for c in cells} - {None}:
            if name != (one := canonical_name(name)):
                raise MuvlaError(
                    f"study {self.name}, intervention", got=name, expected=f"its one name, {one}", remedy="write that"
                )
        allowed = {*self.factors, SEED}
        for other in cells:
            # Against the base is enough: what two cells differ in, at least one of them differs in from the base.
            undeclared = {k: v for k, v in difference(self.base, other.cell).items() if k not in allowed}
            if undeclared:
                shown = "; ".join(f"{k}: {a!r} in the base, {b!r} in this variant" for k, (a, b) in undeclared.items())
                raise MuvlaError(
                    f"study {self.name}, variant {other.variant!r}",
                    got=f"an undeclared difference: {shown}",
                    expected=f"differences in the declared factors only ({', '.join(self.factors)})",
                    remedy="declare the field as a factor, or take it out of the variant",
                )
        seen: dict[str, StudyCell] = {}
        for item in cells:
            one = content_hash(started_at(canonical(item.cell), start_content(item.cell)))
            if one in seen:
                raise MuvlaError(
                    f"study {self.name}",
                    got=f"{seen[one].label!r} and {item.label!r}, which are one computation",
                    expected="different cells",
                    remedy="remove one variant (unused fields do not make a cell different)",
                )
            seen[one] = item

    def _check_protocols(self, cells: list[StudyCell]) -> None:
        where = f"study {self.name}, protocol"
        starts = {item.cell.start.checkpoint: item.cell for item in cells}
        prompts = {place: prompts_of(cell) for place, cell in starts.items()}
        ids = [one.id for one in self.protocols] + [p.id for p in self.every_protocol if p not in self.protocols]
        for one in self.every_protocol:
            if ids.count(one.id) > 1:
                raise MuvlaError(where, got=f"{one.id} twice", expected="one of each id", remedy="rename one")
            if one.id in PROTOCOLS and one.hash != PROTOCOLS[one.id].hash:
                raise MuvlaError(
                    where,
                    got=f"another {one.id} than the published one",
                    expected=f"`protocol({one.id!r})`",
                    remedy="give your own a name of its own",
                )
            for item in cells:
                for what, got, fits, expected in _demands(one, item.cell, prompts[item.cell.start.checkpoint]):
                    if not fits:
                        raise MuvlaError(
                            f"{where} {one.id}: {what}",
                            got=got,
                            expected=f"{expected} of variant {item.variant!r}",
                            remedy="choose a protocol that fits every variant, or change the variant",
                        )

    def _check_predictions(self, cells: list[StudyCell]) -> None:
        """A prediction that no run could decide is a slip of the pen."""
        run = {item.variant: {(p.id, kind) for p, kind in conditions(self, item.cell)} for item in cells}
        for one in self.predictions:
            unknown = [variant for variant in one.variants if variant not in self.variants]
            known = set().union(*(run[variant] for variant in one.variants if variant in run))
            named = one.protocol or self.protocols[0].id
            lacking = [i for i in (one.intervention, one.versus, "none") if (named, i) not in known]
            if unknown or lacking:
                raise MuvlaError(
                    f"study {self.name}, prediction {one.text!r}",
                    got=f"variant {unknown[0]}" if unknown else f"{lacking[0]} under {named}",
                    expected="a variant of the study" if unknown else "a condition that the study runs on its variants",
                    remedy="correct it, or add what is missing to the study",
                )

    def with_base(self, changes: dict[str, Any]) -> Study:
        """The same study on a changed base. Raises MuvlaError for a field that a variant sets too: the variant would
        win."""
        for field_name in changes:
            variants = [variant for variant, own in self.variants.items() if field_name in own]
            if variants or field_name == SEED:
                raise MuvlaError(
                    f"--set {field_name}",
                    got=f"a field that is set by {', '.join(variants) or 'the training seeds'}",
                    expected="a field that all variants take from the base",
                    remedy="change the variants in the study file",
                )
        return dataclasses.replace(self, base=replace(self.base, changes))

    def narrowed(self, seeds: tuple[int, ...] | None = None, variants: tuple[str, ...] | None = None) -> Study:
        """The same study restricted to some of its seeds or variants."""
        for name, wanted, known in (("seeds", seeds, self.seeds), ("variants", variants, tuple(self.variants))):
            unknown = [w for w in wanted or () if w not in known]
            if unknown:
                raise MuvlaError(
                    f"--{name}", got=unknown[0], expected=f"one of {', '.join(map(str, known))}", remedy="correct it"
                )
        kept = {name: changes for name, changes in self.variants.items() if variants is None or name in variants}
        told = [
            dataclasses.replace(p, variants=left)
            for p in self.predictions
            if (left := tuple(a for a in p.variants if a in kept))
        ]
        return dataclasses.replace(self, seeds=seeds or self.seeds, variants=kept, predictions=tuple(told))


def _canonical(one: Prediction) -> Prediction:
    names = {name: canonical_name(getattr(one, name)) for name in ("intervention", "versus")}
    return dataclasses.replace(one, **names)


def _demands(one: Protocol, cell: Cell, prompts: Prompts) -> Iterator[tuple[str, Any, bool, str]]:
    """(what, got, whether it fits, expected) of a protocol and every dataset that a cell is trained on."""
    fits = one.h <= cell.model.chunk or one.beyond == "hold_last"
    yield "h", one.h, fits, f"at most H = {cell.model.chunk}"
    theirs, own = task_info(one.task.name), [task_info(data.task.name) for data in cell.data.datasets]
    camera = one.image_size or theirs.camera
    resizes = cell.model.images != "stored"  # resized frames may have any size, but the same in training and evaluation
    for data, info in zip(cell.data.datasets, own, strict=True):
        shown = (data.image_size or info.camera) if resizes else cell.model.size.image_size
        yield "task", theirs.suite, theirs.suite == info.suite, f"suite {info.suite}, as its data"
        yield "image_size", camera, camera == shown, f"{shown}, the {'data' if resizes else 'model'}'s"
        yield "seed", one.seed, not _overlap(one, data), "episodes that it is not trained on"
    yield "task", *_prompt_lengths(prompts, theirs, own, cell.model.prompt_tokens)


def _prompt_lengths(
    prompts: Prompts, theirs: TaskInfo, own: list[TaskInfo], declared: int | None
) -> tuple[int, bool, str]:
    """The longest got, whether all fit, expected. Prompts of one length, and a policy trained on them has no padding,
    unless declared; of several, and it pads up to the longest."""
    got = {len(prompts.encode(text)) for text in theirs.instructions}
    if declared is not None:
        return max(got), max(got) <= declared, f"a prompt of at most {declared} tokens, the model.prompt_tokens"
    lengths = {len(prompts.encode(text)) for one in own for text in one.instructions}
    longest, padded = max(lengths), len(lengths) > 1
    fits = max(got) <= longest if padded else got == lengths
    as_in_data = f"a prompt of {'at most ' * padded}{longest} tokens, as in the data without model.prompt_tokens,"
    return max(got), fits, as_in_data


def _overlap(one: Protocol, data: DatasetConfig) -> bool:
    """Of the episodes evaluated and those demonstrated, as far as they can be told before the collection; attempts that
    failed come on top, and the evaluation itself checks those too, and the seeds that imported demonstrations tell."""
    return data.source is None and max(one.seed, data.seed) < min(one.seed + one.episodes, data.seed + data.episodes)


def difference_of(a: Cell, b: Cell) -> dict[str, tuple[Any, Any]]:
    """The exact difference of two cells, field by field; empty if they are one computation."""
    return difference(canonical(a), canonical(b))


def train_id(cell: Cell, store: EpisodeStore) -> str:
    """Hash of the canonical training configuration, with the content of what it starts from, and of the data's
    content."""
    return identity.train_id(cell, store.sha256, start_content(cell))


def conditions(study: Study, cell: Cell) -> Iterator[tuple[Protocol, str]]:
    """(protocol, intervention name) of every evaluation of a cell, each once: by protocol the plain run first, then the
    interventions, which a cell without MEMORY tokens does not have; then what the points of grids add."""
    own = [(one, kind) for one in study.protocols for kind in ("none", *study.interventions)]
    acts = has_memory(cell)
    for one, kind in dict.fromkeys(own + study.points):
        if kind == "none" or acts:
            yield one, kind


def reads(study: Study, cell: Cell) -> list[ScheduledMeasurement]:
    """The readings that are taken of a cell."""
    return [
        one
        for one in study.reads
        if (has_memory(cell) or not one.reading.needs_memory) and (cell.recurs or not one.reading.needs_recurrence)
    ]


def has_memory(cell: Cell) -> bool:
    """Whether it has MEMORY tokens to act on, be they learned ones that are never written."""
    return canonical(cell).memory.kind != "none"


def load_study(path: Path) -> Study:
    """The `study` of a study file, or of the `study.py` in a folder."""
    file = path / "study.py" if path.is_dir() else path
    if not file.exists():
        raise MuvlaError(
            "study",
            got=str(path),
            expected="a study file or a folder that holds study.py",
            remedy="for instance experiments/recall_quick",
        )
    spec = importlib.util.spec_from_file_location(f"muvla_study_{file.parent.name}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except MuvlaError:
        raise
    except Exception as error:  # a misspelt field, preset or import; anything else that its own code does
        raise MuvlaError(
            str(file),
            got=f"{type(error).__name__}: {error}",
            expected="a study file that can be imported",
            remedy="correct it there",
        ) from error
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise MuvlaError(str(file), got=type(study).__name__, expected="a Study named `study`", remedy="define it")
    return study
