"""Which interventions a cell's memory can take, known before anything is trained.

A study declares its interventions once for all variants. An intervention that is undefined for a variant's mechanism is
not run there. Plan and report call the pair "not applicable"; a rate is never counted as zero for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import torch

from muvla.config import Cell, MemoryConfig, ModelConfig
from muvla.errors import MuvlaError
from muvla.evaluation.checks import require_defined
from muvla.interventions import parse_intervention
from muvla.memory.base import Memory
from muvla.memory.registry import build_memory
from muvla.models.policy import Interface, dimensions_of
from sweeps.cells import StudyCell, has_memory

MOST_CAMERAS = 4  # that a mechanism is built for without data
NO_MEMORY = "no state to intervene on"


def why_not_applicable(cell: Cell, intervention: str) -> str:
    """The reason why an intervention is not run on a cell; "" where the intervention is run.

    Args:
        cell: the cell.
        intervention: canonical name, or "none".
    """
    if intervention == "none":
        return ""
    return _reason(cell.memory, cell.model, intervention) if has_memory(cell) else NO_MEMORY


@cache
def _reason(memory: MemoryConfig, model: ModelConfig, name: str) -> str:
    built = _build(memory, model)
    if built is None:  # a mechanism that needs the data: the evaluation checks it
        return ""
    intervention = parse_intervention(name)
    try:
        with torch.device("meta"):
            require_defined(intervention, built)
    except MuvlaError as error:
        return f"{error.got}, and `{name}` needs {error.expected}"
    return ""


@cache
def _build(memory: MemoryConfig, model: ModelConfig) -> Memory | None:
    """The mechanism without values, for the first number of cameras that its configuration allows."""
    for cameras in range(1, MOST_CAMERAS + 1):
        interface = Interface(cameras=cameras, proprio_dim=1, action_dim=1, text=1, text_padded=False)
        try:
            with torch.device("meta"):
                return build_memory(memory, dimensions_of(model, interface))
        except MuvlaError:
            continue
    return None


def not_applicable(cells: Iterable[StudyCell], interventions: Iterable[str]) -> dict[str, dict[str, str]]:
    """Intervention → variant → reason, for every pair that is not run."""
    by_variant = {item.variant: item.cell for item in cells}
    reasons_of = {
        name: {variant: reason for variant, cell in by_variant.items() if (reason := why_not_applicable(cell, name))}
        for name in interventions
    }
    return {name: reasons for name, reasons in reasons_of.items() if reasons}


def require_some_variant(where: str, cells: Iterable[StudyCell], interventions: Iterable[str]) -> None:
    """Raises MuvlaError for an intervention that no variant with a memory can take.

    Args:
        where: what the error names, for example "study recall_quick".
        cells: every cell of the study.
        interventions: canonical names.
    """
    with_memory = [item for item in cells if has_memory(item.cell)]
    variants = {item.variant for item in with_memory}
    for name, reasons in not_applicable(with_memory, interventions).items():
        if variants and reasons.keys() == variants:
            variant, reason = next(iter(reasons.items()))
            raise MuvlaError(
                f"{where}, interventions",
                got=name,
                expected=f"an intervention that some variant can take; {variant!r}: {reason}",
                remedy=f"take {name} out of the study, or add a variant whose memory can take it",
            )


def applicability_lines(reasons: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A sentence for the interventions that do not apply to the same variants for the same reasons."""
    alike: dict[str, list[str]] = {}
    for name, by_variant in reasons.items():
        by_reason: dict[str, list[str]] = {}
        for variant, reason in by_variant.items():
            by_reason.setdefault(reason, []).append(variant)
        text = "; ".join(f"{', '.join(variants)} ({reason})" for reason, variants in by_reason.items())
        alike.setdefault(text, []).append(f"`{name}`")
    return [f"Not applicable, so not run: {', '.join(names)} on {text}" for text, names in alike.items()]
