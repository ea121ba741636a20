"""Checks that a study is controlled and can run. Every function raises MuvlaError for a study that is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muvla.checkpoints.build import get_prompts, hash_start
from muvla.config import Cell, DatasetConfig, canonical, started_at
from muvla.config.serialization import content_hash, difference, flatten
from muvla.data.span import require_span, require_span_of_data
from muvla.envs.registry import TaskInfo, task_info
from muvla.envs.target_words import add_target
from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol, require_decisions
from muvla.interventions import canonical_name
from muvla.models.prompts import Prompts
from sweeps.cells import StudyCell
from sweeps.predictions import Prediction


def require_canonical_names(field: str, interventions: Iterable[str]) -> None:
    """An intervention has one name in rows, tables and files."""
    for name in interventions:
        if name != (canonical := canonical_name(name)):
            raise MuvlaError(
                field, got=name, expected=f"its canonical name, {canonical}", remedy=f"write {canonical!r}"
            )


def undeclared_differences(a: Cell, b: Cell, allowed: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two cells differ although no factor allows the difference: {field: (in a, in b)}."""
    if a is b:
        return {}
    undeclared = {name: pair for name, pair in difference(a, b).items() if name not in allowed}
    if undeclared and "memory.kind" in allowed:
        follows = flatten(a).keys() ^ flatten(b).keys()
        return {name: pair for name, pair in undeclared.items() if name not in follows}
    return undeclared


def require_declared_differences(where: str, base: Cell, allowed: Collection[str], cells: Iterable[StudyCell]) -> None:
    """No two cells differ in a field that is no factor.

    Each cell is compared with the base. In every field in which two cells differ, at least one of them differs from the
    base. Fields that only one of two memory mechanisms has follow from the factor `memory.kind`. Cells of one mechanism
    must agree in these fields, so each cell is also compared with the first cell of its mechanism.

    Args:
        where: what the error names, for example "study recall_quick".
        base: the base of the study.
        allowed: dotted fields in which cells may differ.
        cells: every cell of the study.
    """
    first_of: dict[str, Cell] = {}
    for item in cells:
        undeclared = undeclared_differences(base, item.cell, allowed)
        first = first_of.setdefault(item.cell.memory.kind, item.cell)
        undeclared |= undeclared_differences(first, item.cell, allowed)
        if undeclared:
            shown = "; ".join(
                f"{name}: {a!r} in the base, {b!r} in this variant" for name, (a, b) in undeclared.items()
            )
            raise MuvlaError(
                f"{where}, variant {item.variant!r}",
                got=f"an undeclared difference: {shown}",
                expected=f"differences in the declared factors only ({', '.join(allowed)})",
                remedy="declare the field as a factor, or take it out of the variant",
            )


def require_distinct(where: str, cells: Iterable[StudyCell]) -> None:
    """No two cells are one computation."""
    seen: dict[str, StudyCell] = {}
    for item in cells:
        computation = content_hash(started_at(canonical(item.cell), hash_start(item.cell)))
        if computation in seen:
            raise MuvlaError(
                where,
                got=f"{seen[computation].label!r} and {item.label!r}, which are one computation",
                expected="different cells",
                remedy="remove one of the variants; a field that a computation does not use makes no cell different",
            )
        seen[computation] = item


def require_known_tasks(protocols: Iterable[Protocol], cells: Iterable[StudyCell]) -> None:
    """Tasks of the data and of the protocols exist, and every episode reaches its decision."""
    protocols = list(protocols)
    of_data = [dataset.task.name for item in cells for dataset in item.cell.data.collected]
    for name in dict.fromkeys([*of_data, *(protocol.task.name for protocol in protocols)]):
        task_info(name)
    require_decisions(protocols)


def require_decidable(
    where: str,
    predictions: Iterable[Prediction],
    conditions: Mapping[str, Collection[tuple[str, str]]],
    first_protocol: str,
) -> None:
    """Every prediction is about variants and conditions that the study runs.

    Args:
        where: what the error names, for example "study recall_quick".
        predictions: those of the study.
        conditions: variant → (protocol id, intervention) of its evaluations.
        first_protocol: id of the protocol of a prediction that names none.
    """
    for prediction in predictions:
        field = f"{where}, prediction {prediction.text!r}"
        for variant in prediction.variants:
            if variant not in conditions:
                raise unknown_name(f"{field}: variants", variant, conditions)
        run = set().union(*(conditions[variant] for variant in prediction.variants))
        protocol = prediction.protocol or first_protocol
        for intervention in (prediction.intervention, prediction.versus, "none"):
            if (protocol, intervention) not in run:
                raise MuvlaError(
                    field,
                    got=f"{intervention} under {protocol}",
                    expected="a condition that the study runs on its variants",
                    remedy="add the intervention or the protocol to the study, or change the prediction",
                )


def require_fitting(
    where: str, protocols: Sequence[Protocol], every_protocol: Sequence[Protocol], cells: Sequence[StudyCell]
) -> None:
    """Every protocol fits every cell, and an id means one protocol.

    Args:
        where: what the error names, for example "study recall_quick".
        protocols: those that the study lists.
        every_protocol: those of its probes too.
        cells: every cell of the study.
    """
    prompts = {}
    for item in cells:
        prompts.setdefault(item.cell.start.checkpoint, get_prompts(item.cell))
    parts = {(i.cell.memory, i.cell.model, i.cell.data, i.cell.start): i for i in reversed(cells)}
    alike = list(reversed(parts.values()))  # a protocol asks nothing of the other parts of a cell
    ids = [p.id for p in protocols] + [p.id for p in every_protocol if p not in protocols]
    for protocol in every_protocol:
        if ids.count(protocol.id) > 1:
            raise MuvlaError(
                f"{where}, protocol",
                got=f"{protocol.id} twice",
                expected="one protocol of each id",
                remedy="rename one of the two",
            )
        if protocol.id in declared_protocols() and protocol.hash != declared_protocols()[protocol.id].hash:
            raise MuvlaError(
                f"{where}, protocol",
                got=f"a protocol {protocol.id} that differs from the published one",
                expected=f"`get_protocol({protocol.id!r})`",
                remedy="give the changed protocol a new name",
            )
        for item in alike:
            require_span_of_data(item.cell.memory, item.cell.data)
            require_span(item.cell.memory, protocol.task, protocol.id, protocol.step_limit)
            for demand in _demands(protocol, item.cell, prompts[item.cell.start.checkpoint]):
                if not demand.met:
                    raise MuvlaError(
                        f"{where}, protocol {protocol.id}: {demand.field}",
                        got=demand.got,
                        expected=f"{demand.expected} of variant {item.variant!r}",
                        remedy="choose a protocol that fits every variant, or change the variant",
                    )


@dataclass(frozen=True)
class Demand:
    """A demand of a cell on one field of a protocol."""

    field: str
    got: Any
    met: bool
    expected: str


def _demands(protocol: Protocol, cell: Cell, prompts: Prompts) -> Iterator[Demand]:
    fits = protocol.h <= cell.model.chunk or protocol.beyond == "hold_last"
    yield Demand("h", protocol.h, fits, f"at most H = {cell.model.chunk}")
    yield Demand("horizon", protocol.horizon, protocol.horizon <= cell.model.chunk, f"at most H = {cell.model.chunk}")
    evaluated = task_info(protocol.task.name)
    trained = [task_info(data.task.name) for data in cell.data.datasets]
    camera = protocol.image_size or evaluated.camera
    # Frames that the model resizes may have any size, but the same size in training and in evaluation.
    resizes = cell.model.images != "stored"
    for data, info in zip(cell.data.datasets, trained, strict=True):
        shown = (data.image_size or info.camera) if resizes else cell.model.size.image_size
        whose = "data" if resizes else "model"
        same_suite = evaluated.suite == info.suite
        yield Demand("task", evaluated.suite, same_suite, f"suite {info.suite}, as the data")
        yield Demand("image_size", camera, camera == shown, f"{shown}, the size of the {whose}")
        yield Demand("seed", protocol.seed, not overlap(protocol, data), "episodes that are not in the training data")
    if cell.data.held_out is not None:
        unseen = not overlap(protocol, cell.data.held_out)
        yield Demand("seed", protocol.seed, unseen, "episodes that are not in data.held_out")
    yield _prompt_demand(prompts, evaluated, trained, cell)


def _prompt_demand(prompts: Prompts, evaluated: TaskInfo, trained: list[TaskInfo], cell: Cell) -> Demand:
    """The prompts of the evaluation are no longer than the policy takes.

    A policy whose data have prompts of one length has no padding, unless `model.prompt_tokens` declares a length, and
    takes this length alone. With prompts of several lengths the policy pads up to the longest.
    """
    declared, texts = cell.model.prompt_tokens, evaluated.instructions
    if cell.data.instruction == "with_target":
        texts = tuple(add_target({"instruction": text, "target": 0}) for text in texts)
    got = {len(prompts.encode(text)) for text in texts}
    if declared is not None:
        expected = f"a prompt of at most {declared} tokens, the model.prompt_tokens"
        return Demand("task", max(got), max(got) <= declared, expected)
    lengths = {len(prompts.encode(text)) for info in trained for text in info.instructions}
    longest, padded = max(lengths), len(lengths) > 1
    fits = max(got) <= longest if padded else got == lengths
    length = f"at most {longest}" if padded else str(longest)
    expected = f"a prompt of {length} tokens, as in the data without model.prompt_tokens,"
    return Demand("task", max(got), fits, expected)


def overlap(protocol: Protocol, data: DatasetConfig) -> bool:
    """True if an evaluation seed is among the demonstrated seeds, as far as the configuration tells.

    A failed attempt of the expert takes a seed more. The evaluation itself checks these seeds too, and the seeds that
    imported demonstrations name.
    """
    first, last = max(protocol.seed, data.seed), min(protocol.seed + protocol.episodes, data.seed + data.episodes)
    return data.source is None and first < last
