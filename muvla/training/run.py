"""A whole training in a folder: log, checkpoints, clean stops and exact continuation."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from muvla.checkpoints import native
from muvla.models.compilation import is_compiled
from muvla.training.diagnostics import Diagnosis
from muvla.training.held_out import HeldOut
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.resume import make_checkpoint, resume
from muvla.training.selection import Selection
from muvla.training.trainer import Trainer
from muvla.utils.foreign import decode
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
    held_out: HeldOut | None = None,
) -> Path:
    """Trains to update U, or to the pause of `options.until`, and returns the last checkpoint.

    A folder with a checkpoint is continued from this checkpoint. A finished folder is returned at once. The newest
    `options.keep` checkpoints stay, and the selected one. Ranks share the folder, and only rank 0 writes.

    Args:
        trainer: a fresh trainer of the cell.
        folder: receives `train.jsonl` (a line every LOG_EVERY updates), `checkpoints/` (CHECKPOINTS of them) and
            `weights/`.
        progress: called with every log line.
        should_stop: when it returns True, the current update is finished and checkpointed, and training ends.
        options: how the training is computed and what it keeps; with `diagnostics`, log lines hold measurements.
        held_out: demonstrations on which every diagnosed line measures the policy.
    """
    with trainer.prefetcher:
        return _Training(trainer, folder, progress, should_stop, options, held_out).run()


class _Training:
    """The state of `train_to_the_end` beside the trainer's."""

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        options: TrainingOptions,
        held_out: HeldOut | None,
    ):
        self.trainer, self.ranks = trainer, trainer.ranks
        self.log, self.checkpoints = folder / "train.jsonl", folder / "checkpoints"
        self.weights = folder / native.WEIGHTS
        self.progress, self.should_stop, self.options = progress, should_stop, options
        self.held_out = held_out
        self.updates = trainer.cell.budget.updates
        self.last = options.last_update(self.updates)  # where this call ends or pauses
        self.marks = {round(self.updates * (i + 1) / CHECKPOINTS) for i in range(CHECKPOINTS)}
        self.newest: str | None = None  # name of the newest checkpoint's folder
        self.selection: Selection | None = None

    def run(self) -> Path:
        trainer = self.trainer
        saved = self._resume()
        if saved is not None and trainer.update >= self.last:
            return self.checkpoints / self.newest
        if trainer.cell.selection == "loss":
            self.selection = Selection(saved and saved.selection)
        self.ranks.on_main(lambda: _cut_log(self.log, trainer.update))
        trainer.leak_test()
        # Rank 0 measures its slots; a sharded policy is not measured.
        measures = self.options.diagnostics and self.ranks.is_main and not self.ranks.sharded
        started, frames = time.perf_counter(), 0
        while trainer.update < self.last:
            logged = (trainer.update + 1) % LOG_EVERY == 0 or trainer.update + 1 == self.updates
            diagnosis = make_diagnosis(trainer) if measures and logged else None
            loss, norm = trainer.step(diagnosis)
            if self.selection:
                self.selection.add(loss)
            frames += trainer.cell.budget.frames_per_update
            if logged:
                self._log(loss, norm, frames / (time.perf_counter() - started), diagnosis)
            if trainer.update in self.options.weights_at:  # before a checkpoint that a training continues from
                self._save_weights()
            stopping = self.ranks.any(self.should_stop())
            if trainer.update in self.marks or trainer.update == self.last or stopping:
                self._save()
            if stopping:
                break
        return self.checkpoints / self.newest

    def _resume(self) -> native.Checkpoint | None:
        """Continues from the folder's newest checkpoint, if there is one, and returns it."""
        self.newest = self.ranks.on_main(lambda: _name(native.latest(self.checkpoints)))
        if self.newest is None:
            return None
        with self.ranks.raise_together():
            saved = native.load(self.checkpoints / self.newest)
            resume(self.trainer, saved)
        return saved

    def _log(self, loss: float, norm: float, speed: float, diagnosis: Diagnosis | None) -> None:
        trainer = self.trainer
        row: dict[str, Any] = {
            "update": trainer.update,
            "loss": loss,
            "gradient_norm": norm,
            "memory_rms": trainer.memory_rms(),
            "lr": trainer.optimizer.param_groups[0]["lr"],
            "frames_per_second": round(speed, 1),
        }
        if diagnosis:
            row |= diagnosis.row
            if self.held_out:
                row["loss_at_first_decision_held_out"] = self.held_out.measure()
            if self.ranks.size > 1:  # loss, norm and RMS are of all slots, the diagnosis of rank 0's
                row["slots_looked_at"] = len(trainer.slots)
        self.ranks.on_main(lambda: append_line(self.log, row))
        self.progress(Progress(trainer.update, self.updates, loss, speed))

    def _save_weights(self) -> None:
        """Stores the weights alone; the training computes nothing else because of them."""
        whole = make_checkpoint(self.trainer)
        weights = replace(whole, tensors={"model": whole.tensors["model"]})
        write = lambda: _name(native.save(self.weights, weights, keep=sys.maxsize))  # noqa: E731
        self.ranks.on_main(write, long_running=True)

    def _save(self) -> None:
        if self.selection and self.trainer.update in self.marks:
            self.selection.candidate(self.trainer.update)
        state = self.selection.state() if self.selection else None
        checkpoint = replace(make_checkpoint(self.trainer), selection=state)
        write = lambda: _name(native.save(self.checkpoints, checkpoint, self.options.keep))  # noqa: E731
        self.newest = self.ranks.on_main(write, long_running=True)


def _name(checkpoint: Path | None) -> str | None:
    return checkpoint and checkpoint.name


def make_diagnosis(trainer: Trainer) -> Diagnosis:
    """Returns a diagnosis for the trainer's next update; compiled policies get no credit measurement."""
    compiled = is_compiled(trainer.policy)
    return Diagnosis(trainer.names, trainer.parameters, credit=not compiled)


class _Line(msgspec.Struct):
    update: int


def _cut_log(path: Path, update: int) -> None:
    """Removes the log lines behind the checkpoint; the continued training writes them again."""
    if path.exists():
        lines = enumerate(read_lines(path), start=1)
        rows = [row for number, row in lines if decode(row, _Line, f"{path}:{number}").update <= update]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
