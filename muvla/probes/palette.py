"""Generalisation to new colours: training colours replaced by others and, as a control, by one another."""

from __future__ import annotations

from itertools import combinations

from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from muvla.evaluation.protocol import Protocol
from muvla.probes.base import Grid, Point
from muvla.probes.task_variants import derive_protocol, require_settable
from muvla.utils.rng import numpy_rng

VERSION = 1
# The published probe's colours (μVLA spec 7), with their RGB in muvla.envs.colours. The assignment is not published.
NEW = ("pink", "orange", "purple", "brown", "white")


def palettes(
    base: Protocol, replaced: tuple[int, ...] = (1, 2, 3, 4, 5), sample: int | None = None, seed: int = 0
) -> Grid:
    """Evaluations with training colours replaced by new colours, and a control.

    The grid has a point per subset of replaced training colours, the base with 0 replaced, and the control. In the
    control every object has the training colour of the next object. If the first colour of a subset is the i-th
    training colour, its j-th colour becomes the (i + j)-th new colour, counted around.

    Args:
        base: the protocol to start from.
        replaced: sizes of the subsets; sizes that the task does not have are left out.
        sample: subsets per size, drawn by `seed`; None for all subsets.
        seed: of the draw.
    """
    require_settable(base, "palette")
    training = base.task.palette or task_info(base.task.name).colours
    sizes = [size for size in replaced if 1 <= size <= min(len(training), len(NEW))]
    if not sizes:
        raise MuvlaError(
            f"probe of {base.id}: replaced",
            got=replaced,
            remedy="choose sizes in this range",
            expected=f"numbers of colours from 1 to {min(len(training), len(NEW))}",
        )
    points = [_point(base, training, (), control="no")]
    if len(training) > 1:
        points.append(_point(base, (*training[1:], training[0]), (), control="permuted"))
    for size in sizes:
        for subset in _subsets(base, len(training), size, sample, seed):
            palette = list(training)
            for j, i in enumerate(subset):
                palette[i] = NEW[(subset[0] + j) % len(NEW)]
            points.append(_point(base, tuple(palette), tuple(training[i] for i in subset), control="no"))
    drawn = "all subsets" if sample is None else f"at most {sample} subsets of each size (seed {seed})"
    return Grid(
        "palette",
        VERSION,
        tuple(points),
        x="replaced",
        curve="control",
        notes=f"Training colours {', '.join(training)}; new ones {', '.join(NEW)}; {drawn}. "
        "Control: the training colours, each at the next object.",
    )


def _subsets(base: Protocol, n: int, size: int, sample: int | None, seed: int) -> list[tuple[int, ...]]:
    every = list(combinations(range(n), size))
    if sample is None or sample >= len(every):
        return every
    drawn = numpy_rng(seed, "palette probe", base.task.name, size).choice(len(every), sample, replace=False)
    return [every[i] for i in sorted(drawn)]


def _point(base: Protocol, palette: tuple[str, ...], subset: tuple[str, ...], control: str) -> Point:
    changed = subset or control == "permuted"
    protocol = derive_protocol(
        base, f"palette-{'-'.join(palette)}", VERSION, {"task.palette": palette} if changed else {}
    )
    where = (("replaced", len(subset)), ("subset", ", ".join(subset)), ("control", control))
    return Point(protocol, "none", where)
