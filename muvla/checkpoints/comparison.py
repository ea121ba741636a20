"""What in a released directory does not fit the policy that it should be: a line per thing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from muvla.checkpoints.film_weights import VisionFile
from muvla.checkpoints.names import Shapes
from muvla.checkpoints.tensors import Shards
from muvla.models.policy import Interface


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    if isinstance(tensors, Shards | VisionFile):
        return tensors.shapes
    return {n: tuple(t.shape) for n, t in tensors.items()}


def tensor_differences(part: str, found: Shapes, expected: Shapes) -> list[str]:
    """Missing, unexpected and misshapen tensors."""
    lines = [f"{part}: missing {name}" for name in expected.keys() - found.keys()]
    lines += [f"{part}: unexpected {name}" for name in found.keys() - expected.keys()]
    lines += [
        f"{part}: {name} is {found[name]} instead of {expected[name]}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    return sorted(lines)


def statistics_differences(statistics: dict[str, Any], interface: Interface) -> list[str]:
    """Bounds and masks that are not numbers, or not one per dimension of the robot."""
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
            fits = isinstance(mask, list) and len(mask) == length and all(type(one) is bool for one in mask)
            if not fits or (field_name == "proprio" and not all(mask)):
                lines.append(
                    f"statistics: {key}, {field_name}, mask: {mask} instead of {length} times true or false"
                    + " (of proprio, true)" * (field_name == "proprio")
                )
    return lines


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)
