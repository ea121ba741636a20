"""Pruning at declared rungs: after a share of the training, the trials with the higher training loss stop.

All trials of a batch reach a rung before any is compared, so the order in which they get there changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from muvla.utils.foreign import decode
from muvla.utils.io import read_lines


class _Line(msgspec.Struct):
    update: int
    loss: float


@dataclass(frozen=True)
class Standing:
    """A trial at a rung: its number, and the mean training loss over its seeds."""

    number: int
    loss: float


def training_loss(log: Path, update: int) -> float:
    """Mean loss of the log lines in the second half of the training up to an update.

    Args:
        log: `train.jsonl` of a run.
        update: the rung's update; later lines are not read.
    """
    lines = [decode(row, _Line, f"{log}:{number}") for number, row in enumerate(read_lines(log), start=1)]
    until = [line for line in lines if line.update <= update]
    late = [line.loss for line in until if line.update > update / 2] or [line.loss for line in until[-1:]]
    return sum(late) / len(late) if late else math.inf


def survivors(standings: Sequence[Standing], keep: float) -> set[int]:
    """Numbers of the trials that continue: the share `keep` with the lowest losses, rounded up. Ties go to the lower
    number."""
    ranked = sorted(standings, key=lambda standing: (standing.loss, standing.number))
    return {standing.number for standing in ranked[: math.ceil(keep * len(ranked))]}
