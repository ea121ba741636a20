"""A trainer brought to update U in a folder: log, checkpoints, clean stops, exact continuation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from muvla.checkpoints import native as ckpt
from muvla.models.compilation import is_compiled
from muvla.training.diagnostics import Diagnosis
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.selection import Selection
from muvla.training.trainer import Trainer
from muvla.utils.io import append_line, read_lines, write_atomically

LOG_EVERY = 25  # updates per line of train.jsonl
CHECKPOINTS = 4  # per run, the last at its end


@dataclass(frozen=True)
class Progress:
    update: int
    updates: int
    loss: float
    frames_per_second: float


def train_to_the_end(
    trainer: Trainer,
    folder: Path,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    options: TrainingOptions = DEFAULT,
) -> Path:
    """Train to update U, with a log line every LOG_EVERY updates and CHECKPOINTS checkpoints; returns the last one.
    With `options.diagnostics` a line holds those of its update, too. The newest `options.keep` checkpoints stay, and
    the selected one.

    A folder with a checkpoint is continued from it; a finished one is returned at once. When `should_stop` turns true,
    the update at hand is finished and checkpointed. Of several ranks, which share the folder, the first alone writes.
    """
    with trainer.ahead:
        return _train(trainer, folder, progress, should_stop, options)


def _train(
    trainer: Trainer,
    folder: Path,
    progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    options: TrainingOptions,
) -> Path:
    ranks, updates, checkpoints = trainer.ranks, trainer.cell.budget.updates, folder / "checkpoints"
    newest = ranks.on_main(lambda: _name(ckpt.latest(checkpoints)))
    saved = None
    if newest is not None:
        with ranks.together():
            saved = ckpt.load(checkpoints / newest)
            trainer.resume(saved)
        if trainer.update == updates:
            return checkpoints / newest
    selection = Selection(saved and saved.selection) if trainer.cell.selection == "loss" else None
    ranks.on_main(lambda: _cut_log(folder / "train.jsonl", trainer.update))
    trainer.leak_test()
    marks = {round(updates * (i + 1) / CHECKPOINTS) for i in range(CHECKPOINTS)}
    may_look = ranks.is_main and not ranks.sharded  # of several ranks one looks, at its own slots; at no shard
    started, frames = time.perf_counter(), 0
    while trainer.update < updates:
        logged = (trainer.update + 1) % LOG_EVERY == 0 or trainer.update + 1 == updates
        diagnosis = diagnosis_of(trainer) if options.diagnostics and logged and may_look else None
        loss, norm = trainer.step(diagnosis)
        if selection:
            selection.add(loss)
        frames += trainer.cell.budget.frames_per_update
        if logged:
            speed = frames / (time.perf_counter() - started)
            row = {
                "update": trainer.update,
                "loss": loss,
                "gradient_norm": norm,
                "memory_rms": trainer.memory_rms(),
                "lr": trainer.optimizer.param_groups[0]["lr"],
                "frames_per_second": round(speed, 1),
            }
            row |= diagnosis.row if diagnosis else {}
            if diagnosis and ranks.size > 1:  # beside loss, norm and RMS, which are of all slots
                row["slots_looked_at"] = len(trainer.slots)
            ranks.on_main(lambda row=row: append_line(folder / "train.jsonl", row))
            progress(Progress(trainer.update, updates, loss, speed))
        stopping = ranks.any(should_stop())
        if selection and trainer.update in marks:
            selection.candidate(trainer.update)
        if trainer.update in marks or stopping:
            state = selection.state() if selection else None
            checkpoint = replace(trainer.checkpoint(), selection=state)
            newest = ranks.on_main(lambda c=checkpoint: _name(ckpt.save(checkpoints, c, options.keep)), patiently=True)
        if stopping:
            break
    return checkpoints / newest


def _name(checkpoint: Path | None) -> str | None:
    return checkpoint and checkpoint.name


def diagnosis_of(trainer: Trainer) -> Diagnosis:
    compiled = is_compiled(trainer.policy)
    return Diagnosis(trainer.policy.memory, trainer.names, trainer.parameters, credit=not compiled)


def _cut_log(path: Path, update: int) -> None:
    """Log lines after the checkpoint that training continues from will be written again."""
    if path.exists():
        rows = [row for row in read_lines(path) if row["update"] <= update]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
