"""Released checkpoints of every kind, by the content of their folders."""

from __future__ import annotations

from pathlib import Path

from muvla.checkpoints.prismatic import PrismaticCheckpoint
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.checkpoints.training_file import find_run_folder
from muvla.config.model import SizeConfig

AnyCheckpoint = ReleasedCheckpoint | PrismaticCheckpoint


def open_checkpoint(path: Path, size: SizeConfig | None = None, without_memory: bool = False) -> AnyCheckpoint:
    """Opens a directory of OpenVLA, OFT or μVLA, or a training of CogACT, MemoryVLA or CronusVLA.

    Args:
        path: the folder, or a training file.
        size: needed only if the folder does not state it.
        without_memory: ignore the memory of a μVLA checkpoint.
    """
    if find_run_folder(path) is not None:
        return PrismaticCheckpoint(path, size, without_memory)
    return ReleasedCheckpoint(path, size, without_memory)
