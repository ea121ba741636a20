"""A trainer brought to update U in a folder: log, checkpoints, clean stops, exact continuation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from muvla.files import append_line, read_lines, write_atomically
from muvla.models.compiling import is_compiled
from muvla.training import checkpoint as ckpt
from muvla.training.diagnostics import Diagnosis
from muvla.training.loop import Trainer
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.outofmemory import memory_explained
from muvla.training.selection import Selection

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
    the update at hand is finished and checkpointed.
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
    updates, checkpoints = trainer.cell.budget.updates, folder / "checkpoints"
    newest = ckpt.latest(checkpoints)
    saved = None if newest is None else ckpt.load(newest)
    if saved is not None:
        trainer.resume(saved)
        if trainer.update == updates:
            return newest
    selection = Selection(saved and saved.selection) if trainer.cell.selection == "loss" else None
    _cut_log(folder / "train.jsonl", trainer.update)
    trainer.canary()
    marks = {round(updates * (i + 1) / CHECKPOINTS) for i in range(CHECKPOINTS)}
    started, frames = time.perf_counter(), 0
    while trainer.update < updates:
        logged = (trainer.update + 1) % LOG_EVERY == 0 or trainer.update + 1 == updates
        diagnosis = diagnosis_of(trainer) if options.diagnostics and logged else None
        with memory_explained(trainer.cell, trainer.interface, trainer.checkpoint_gradients):
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
            append_line(folder / "train.jsonl", row)
            progress(Progress(trainer.update, updates, loss, speed))
        stopping = should_stop()
        if selection and trainer.update in marks:
            selection.candidate(trainer.update)
        if trainer.update in marks or stopping:
            state = selection.state() if selection else None
            newest = ckpt.save(checkpoints, replace(trainer.checkpoint(), selection=state), options.keep)
        if stopping:
            break
    return newest


def diagnosis_of(trainer: Trainer) -> Diagnosis:
    compiled = is_compiled(trainer.policy)
    return Diagnosis(trainer.policy.memory, trainer.names, trainer.parameters, credit=not compiled)


def _cut_log(path: Path, update: int) -> None:
    """Log lines after the checkpoint that training continues from will be written again."""
    if path.exists():
        rows = [row for row in read_lines(path) if row["update"] <= update]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
