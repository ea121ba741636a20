"""What colours a memory knows: training colours replaced by others, and, as a control, by one another."""

from __future__ import annotations

from itertools import combinations

from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derived, require_settable
from muvla.utils.rng import numpy_rng

VERSION = 1
# Of the published probe (μVLA spec 7); their RGB are in muvla.envs.colours. Which takes whose place is not published.
NEW = ("pink", "orange", "purple", "brown", "white")


def palettes(
    base: Protocol, replaced: tuple[int, ...] = (1, 2, 3, 4, 5), sample: int | None = None, seed: int = 0
) -> Grid:
    """A point per subset of the training colours that is replaced: all subsets of these sizes, or of each size `sample`
    that `seed` draws; the base itself, 0 replaced; and the control, in which every object has the training colour of
    the next. The j-th colour of a subset whose first is the training colours' i-th becomes the new colours' (i + j)-th,
    counted around. Sizes that the task does not have are left out."""
    require_settable(base, "palette")
    own = base.task.palette or task_info(base.task.name).colours
    sizes = [size for size in replaced if 1 <= size <= min(len(own), len(NEW))]
    if not sizes:
        raise MuvlaError(
            f"probe of {base.id}: replaced",
            got=replaced,
            remedy="correct it",
            expected=f"numbers of colours from 1 to {min(len(own), len(NEW))}",
        )
    points = [_point(base, own, (), control="no")]
    if len(own) > 1:
        points.append(_point(base, (*own[1:], own[0]), (), control="permuted"))
    for size in sizes:
        for subset in _subsets(base, len(own), size, sample, seed):
            palette = list(own)
            for j, place in enumerate(subset):
                palette[place] = NEW[(subset[0] + j) % len(NEW)]
            points.append(_point(base, tuple(palette), tuple(own[i] for i in subset), control="no"))
    drawn = "all subsets" if sample is None else f"at most {sample} subsets of each size (seed {seed})"
    return Grid(
        "palette",
        VERSION,
        tuple(points),
        x="replaced",
        curve="control",
        notes=f"Training colours {', '.join(own)}; new ones {', '.join(NEW)}; {drawn}. Control: the training colours, "
        "each at the next object.",
    )


def _subsets(base: Protocol, n: int, size: int, sample: int | None, seed: int) -> list[tuple[int, ...]]:
    every = list(combinations(range(n), size))
    if sample is None or sample >= len(every):
        return every
    drawn = numpy_rng(seed, "palette probe", base.task.name, size).choice(len(every), sample, replace=False)
    return [every[i] for i in sorted(drawn)]


def _point(base: Protocol, palette: tuple[str, ...], subset: tuple[str, ...], control: str) -> Point:
    changed = subset or control == "permuted"
    protocol = derived(base, f"palette-{'-'.join(palette)}", VERSION, {"task.palette": palette} if changed else {})
    where = (("replaced", len(subset)), ("subset", ", ".join(subset)), ("control", control))
    return Point(protocol, "none", where)
