"""The cells of a study, and their identity with their data."""

from __future__ import annotations

from dataclasses import dataclass

from muvla.checkpoints.build import hash_start
from muvla.config import Cell, identity
from muvla.data.store import EpisodeStore


@dataclass(frozen=True)
class StudyCell:
    """A variant of a study with one of its training seeds."""

    variant: str
    cell: Cell

    @property
    def label(self) -> str:
        return f"{self.variant}, seed {self.cell.seed}"


def train_id(cell: Cell, store: EpisodeStore) -> str:
    """Hash of the canonical training configuration, of the data's content and of the checkpoint that it starts from."""
    return identity.train_id(cell, store.sha256, hash_start(cell))


def has_memory(cell: Cell) -> bool:
    """True for a cell with a state to intervene on. The learned tokens of `dummy`, never written, count too."""
    return cell.memory.has_state
