"""Differences between a released directory and the policy that it should hold, a line each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from muvla.checkpoints.film_weights import VisionFile
from muvla.checkpoints.names import Shapes
from muvla.checkpoints.tensors import Shards
from muvla.models.policy import Interface


def get_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Returns the tensors' shapes by name, without reading values."""
    if isinstance(tensors, Shards | VisionFile):
        return tensors.shapes
    return {n: tuple(t.shape) for n, t in tensors.items()}


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


def statistics_differences(statistics: dict[str, Any], interface: Interface) -> list[str]:
    """Returns a line for bounds and masks that are no numbers, or whose length is not the robot's dimension."""
    lines = [] if statistics else ["statistics: no dataset in them"]
    for key, bounds in statistics.items():
        for field_name, length in (("action", interface.action_dim), ("proprio", interface.proprio_dim)):
            for name in ("q01", "q99"):
                inner = bounds.get(field_name) if isinstance(bounds, dict) else None
                got = inner.get(name) if isinstance(inner, dict) else None
                count = len([x for x in got if _is_number(x)]) if isinstance(got, list) else 0
                if count != length:
                    lines.append(f"statistics: {key}, {field_name}, {name}: {count} numbers instead of {length}")
            mask = inner.get("mask", [True] * length) if isinstance(inner, dict) else None
            fits = isinstance(mask, list) and len(mask) == length and all(type(entry) is bool for entry in mask)
            if not fits or (field_name == "proprio" and not all(mask)):
                expected = "true" if field_name == "proprio" else "true or false"
                lines.append(f"statistics: {key}, {field_name}, mask: {mask} instead of {length} times {expected}")
    return lines


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)
