"""Train the cell of a run to the end, or continue it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from muvla.checkpoints.build import get_prompts
from muvla.config import Cell, DatasetConfig, canonical, train_id
from muvla.data.conventions import require_task_conventions
from muvla.data.store import EpisodeStore, open_store
from muvla.errors import Interrupted, MuvlaError
from muvla.evaluation.members import modules_in_use
from muvla.interventions import parse_intervention
from muvla.models.compilation import compile_step
from muvla.runs.run import Run
from muvla.training.distributed.base import SINGLE_PROCESS, Ranks
from muvla.training.held_out import HeldOut
from muvla.training.interface import get_interface
from muvla.training.oom import memory_explained
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.run import Progress, train_to_the_end
from muvla.training.trainer import Trainer
from muvla.training.vision_cache import cache_vision
from muvla.utils.code_version import CODE_VERSION


def train_cell(
    run: Run,
    cell: Cell,
    store: EpisodeStore,
    device: str,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    options: TrainingOptions = DEFAULT,
    ranks: Ranks = SINGLE_PROCESS,
) -> None:
    """Train the cell to its last update, or to the pause of `options.until`; a finished training returns at once.

    Args:
        run: folder of the cell.
        cell: training configuration.
        store: the cell's data.
        device: torch device.
        progress: called every few updates.
        should_stop: asked after every update.
        options: how to compute; no option changes the train id.
        ranks: processes of this training.

    Raises:
        Interrupted: `should_stop` returned True; a fresh checkpoint is on disk.
        NotAMeasurement: an invariant of the training broke.
        MuvlaError: the data or the start is not what the train id was made of.
    """
    ranks.on_main(lambda: run.create(cell, store))
    if ranks.on_main(lambda: run.is_trained):
        return
    with ranks.raise_together(long_running=True):  # every byte is read, by some ranks from a slower disk
        store.verify()
        require_task_conventions(store)
    ranks.assert_equal("muvla's code", CODE_VERSION)
    ranks.assert_equal("data and start", run.train)
    wanted, recompute = canonical(cell), options.checkpoint_gradients
    interface = get_interface(store, get_prompts(wanted), wanted)
    with memory_explained(wanted, interface, recompute, ranks.size):
        trainer = Trainer(
            wanted, store, parse_intervention(wanted.intervention), device, recompute, ranks, options.one_pass
        )
    with ranks.raise_together():
        _require_same_start(run, trainer)
        if options.compiled:
            compile_step(trainer.policy)
    if options.cached_vision:
        cache_vision(trainer, run.root)
    with ranks.raise_together():
        held_out = None if cell.data.held_out is None else _open_held_out(run, cell.data.held_out, trainer)
    with _timed(run, device, store, trainer, options) if ranks.is_main else contextlib.nullcontext():
        train_to_the_end(trainer, run.folder, progress, should_stop, options, held_out)
    if trainer.update < options.last_update(trainer.cell.budget.updates):
        raise Interrupted


def _open_held_out(run: Run, spec: DatasetConfig, trainer: Trainer) -> HeldOut:
    store = open_store(run.data, spec)
    store.verify()
    return HeldOut(trainer, store)


def _timed(
    run: Run, device: str, store: EpisodeStore, trainer: Trainer, options: TrainingOptions
) -> AbstractContextManager[None]:
    # On a CPU, cached features equal the towers' features bit for bit.
    cached = options.cached_vision and device != "cpu"
    tasks = [dataset.task.name for dataset in trainer.cell.data.datasets]
    members = modules_in_use(trainer.policy, tasks, parse_intervention(trainer.cell.intervention))
    ranks = trainer.ranks.description
    provenance = run.record_provenance(
        device,
        store.simulator,
        trainer.policy,
        members=members,
        cached_vision=cached,
        one_pass=options.one_pass,
        ranks=ranks,
    )
    return run.timed("training", provenance)


def _require_same_start(run: Run, trainer: Trainer) -> None:
    """Raises MuvlaError if the starting checkpoint changed since the train id was made.

    A folder, or a branch of the hub, may have changed in the meantime.
    """
    now = train_id(trainer.cell, trainer.stream.store.sha256, trainer.start)
    if trainer.start is not None and now != run.train:
        raise MuvlaError(
            f"start.checkpoint {trainer.cell.start.checkpoint}",
            got=f"content {trainer.start} (train id {now})",
            expected=f"the content that train id {run.train} was made of",
            remedy="it changed since the sweep began: plan it again, and on the hub name a revision (@…)",
        )
