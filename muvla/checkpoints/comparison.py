"""Differences between a released directory and the policy that it should hold, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from muvla.checkpoints.fields import is_number, shorten
from muvla.checkpoints.film_weights import VisionFile
from muvla.checkpoints.names import Shapes
from muvla.checkpoints.tensors import FLOAT_TYPES, FLOATS, Shards
from muvla.models.policy import Interface
from muvla.models.prompts import Prompts
from muvla.utils.foreign import decode

LARGEST = 1e30  # of a bound, so that the width of a range is finite in float32


def get_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Returns the tensors' shapes by name, without reading values."""
    if isinstance(tensors, Shards | VisionFile):
        return tensors.shapes
    return {n: tuple(t.shape) for n, t in tensors.items()}


def dtype_differences(part: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns a line for every tensor whose numbers are no plain floats: a cast would change their meaning."""
    if isinstance(tensors, Shards):
        wrong = {name: dtype for name, dtype in tensors.dtypes.items() if dtype not in FLOATS}
    else:
        stored = tensors.stored if isinstance(tensors, VisionFile) else tensors
        wrong = {name: str(t.dtype) for name, t in stored.items() if t.dtype not in FLOAT_TYPES}
    return sorted(f"{part}: {name} holds {dtype} instead of floats" for name, dtype in wrong.items())


def value_difference(part: str, name: str, values: Tensor) -> str | None:
    """Returns a line for a tensor with NaN or infinity; None for finite floats, and for what `dtype_differences`
    lists."""
    if values.dtype not in FLOAT_TYPES:
        return None
    if values.dtype == torch.float64:  # the policy computes in float32, where a large number is infinite
        values = values.float()
    if values.isfinite().all():
        return None
    count = int((~values.isfinite()).sum())
    return f"{part}: {name} holds {count:,} numbers of {values.numel():,} that are NaN or infinite"


def tensor_differences(part: str, stored: Shapes, expected: Shapes) -> list[str]:
    """Returns a line for every missing, unexpected or misshapen tensor."""
    lines = [f"{part}: missing {name}" for name in expected.keys() - stored.keys()]
    lines += [f"{part}: unexpected {name}" for name in stored.keys() - expected.keys()]
    lines += [
        f"{part}: {name} is {stored[name]} instead of {expected[name]}"
        for name in expected.keys() & stored.keys()
        if stored[name] != expected[name]
    ]
    return sorted(lines)


def prompt_differences(prompts: Prompts, vocabulary: int) -> list[str]:
    """Returns a line if the tokenizer has identifiers beyond the embedding's rows."""
    largest = max(prompts.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest < vocabulary:
        return []
    return [f"tokenizer: identifier {largest}, and {vocabulary} embeddings"]


class _Column(msgspec.Struct):
    q01: list[float] | None = None
    q99: list[float] | None = None
    mask: list[bool] | None = None


class _Bounds(msgspec.Struct):
    """The checked fields of one dataset's statistics."""

    action: _Column | None = None
    proprio: _Column | None = None


def require_statistics(statistics: Any, where: str) -> None:
    """Raises MuvlaError for statistics of another form. `statistics_differences` lists numbers that do not fit.

    Args:
        statistics: bounds by dataset key.
        where: the file, for errors.
    """
    decode(statistics, dict[str, _Bounds], where, finite=False)


def proprio_dimension(statistics: dict[str, Any]) -> int:
    """Returns the robot's proprio dimension by released statistics; 1 if they do not hold it."""
    entries = [e for e in statistics.values() if isinstance(e, dict) and isinstance(e.get("proprio"), dict)]
    return max((len(e["proprio"].get("q01") or []) for e in entries), default=1)


def statistics_differences(statistics: dict[str, Any], interface: Interface) -> list[str]:
    """Returns a line for bounds and masks that are no numbers, whose length is not the robot's dimension, or whose
    lower bound lies above the upper."""
    lines = [] if statistics else ["statistics: no dataset in them"]
    for key, bounds in statistics.items():
        for part, length in (("action", interface.action_dim), ("proprio", interface.proprio_dim)):
            inner = bounds.get(part) if isinstance(bounds, dict) else None
            lines += _bounds_differences(f"statistics: {key}, {part}", inner, length)
            mask = inner.get("mask", [True] * length) if isinstance(inner, dict) else None
            fits = isinstance(mask, list) and len(mask) == length and all(type(entry) is bool for entry in mask)
            if not fits or (part == "proprio" and not all(mask)):
                expected = "true" if part == "proprio" else "true or false"
                lines.append(f"statistics: {key}, {part}, mask: {shorten(mask)} instead of {length} times {expected}")
    return lines


def _bounds_differences(where: str, bounds: Any, length: int) -> list[str]:
    lines, columns = [], []
    for name in ("q01", "q99"):
        got = bounds.get(name) if isinstance(bounds, dict) else None
        numbers = [x for x in got if _is_number(x)] if isinstance(got, list) else []
        if not isinstance(got, list) or not len(numbers) == len(got) == length:
            lines.append(f"{where}, {name}: {len(numbers)} numbers instead of {length}")
        columns.append(numbers)
    if not lines:
        crossed = [i for i, (low, high) in enumerate(zip(*columns, strict=True)) if low > high]
        lines = [f"{where}: q01 above q99 in dimension {', '.join(map(str, crossed))} (from 0)"] if crossed else []
    return lines


def _is_number(x: Any) -> bool:
    return is_number(x, -LARGEST, LARGEST)
