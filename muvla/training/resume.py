"""A trainer's whole state as a checkpoint, and the exact continuation from one."""

from __future__ import annotations

from muvla.checkpoints import native
from muvla.checkpoints.build import stored_parameters
from muvla.config import Cell, of_sources, started_at
from muvla.errors import MuvlaError
from muvla.training.distributed.memory_state import select_slots
from muvla.training.trainer import Trainer


def make_checkpoint(trainer: Trainer) -> native.Checkpoint:
    """Collects the state of a training on rank 0. Every rank must call this function.

    The content does not depend on the number of ranks. On ranks other than 0 the checkpoint is incomplete.
    """
    ranks = trainer.ranks
    trainer.check_ranks()
    tensors = {
        "model": ranks.gather(stored_parameters(trainer.policy, trainer.cell)),
        "optimizer": ranks.gather(native.optimizer_tensors(trainer.optimizer, trainer.names)),
        "memory": ranks.gather_slots(trainer.recurrence.export()),
    }
    cursor = trainer.stream.state()
    return native.Checkpoint(
        trainer.update, trainer.cell, trainer.start, trainer.interface, trainer.statistics, cursor, tensors
    )


def resume(trainer: Trainer, saved: native.Checkpoint) -> None:
    """Puts the trainer into the saved state; training continues bit for bit as if it had never stopped.

    Raises:
        MuvlaError: the checkpoint belongs to another cell, start, interface or dataset.
    """
    for name, got, expected in (
        ("configuration", _with_local_paths(saved.cell, trainer.cell), trainer.cell),
        ("start", saved.start, trainer.start),
        ("interface", saved.interface, trainer.interface),
        ("statistics", saved.statistics, trainer.statistics),
    ):
        if got != expected:
            raise MuvlaError(
                f"checkpoint {name}",
                got=got,
                expected=str(expected),
                remedy="train in a new folder, or undo the change",
            )
    parameters = stored_parameters(trainer.policy, trainer.cell)
    ranks = trainer.ranks
    native.load_parameters(parameters, ranks.shard_like(saved.tensors["model"], parameters))
    optimizer = ranks.shard_like(saved.tensors["optimizer"], parameters)
    native.load_optimizer(trainer.optimizer, trainer.names, optimizer)
    trainer.recurrence.load(select_slots(saved.tensors["memory"], trainer.slots))
    trainer.stream.load_state(saved.cursor)
    trainer.update = saved.update


def _with_local_paths(saved: Cell, local: Cell) -> Cell:
    """Returns the saved cell with this machine's paths: a path to data or start is no difference between cells."""
    cell = started_at(saved, local.start.checkpoint)
    sources = [dataset.source for dataset in local.data.datasets]
    return of_sources(cell, sources) if len(sources) == len(cell.data.datasets) else cell
