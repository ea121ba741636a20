"""A training that is killed at any moment continues as if nothing had happened."""

import os
import random
import signal
import time

import pytest
import torch

from muvla.checkpoints import native as ckpt
from muvla.training.options import TrainingOptions
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from muvla.utils.io import read_lines

KILLS = 20


def train_in_a_child(cell, store, folder) -> int:
    child = os.fork()
    if child == 0:
        try:
            train_to_the_end(Trainer(cell, store), folder, options=TrainingOptions(keep=2))
        finally:
            os._exit(0)
    return child


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(store, cell_with, tmp_path):
    """Without warning, whatever it was doing, writing a checkpoint included: the end is bit for bit that
    of a training that was left alone, and so is its log but for the speed."""
    # Checkpoints after 8, 16, 24 and 32 updates; the log line of update 25 is cut and written again.
    cell = cell_with({"budget.updates": 32, "truncation": 4, "selection": "loss"})
    started = time.monotonic()
    alone = train_to_the_end(Trainer(cell, store), tmp_path / "alone", options=TrainingOptions(keep=2))
    length = time.monotonic() - started
    draw, killed = random.Random(0), 0
    for _ in range(KILLS):
        child = train_in_a_child(cell, store, tmp_path / "killed")
        time.sleep(draw.uniform(0, 0.4 * length))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    assert killed >= 3, "or most children had ended before"
    survived = train_to_the_end(Trainer(cell, store), tmp_path / "killed", options=TrainingOptions(keep=2))
    kept = [sorted(p.name for p in path.parent.iterdir() if not p.name.startswith(".")) for path in (alone, survived)]
    assert kept[0] == kept[1] and ckpt.selected(alone.parent).name == ckpt.selected(survived.parent).name
    one, two = ckpt.load(alone), ckpt.load(survived)
    assert one.selection == two.selection and one.selection["best"] is not None
    for part in one.tensors:
        assert one.tensors[part].keys() == two.tensors[part].keys()
        assert all(torch.equal(value, two.tensors[part][name]) for name, value in one.tensors[part].items()), part
    assert one.cursor == two.cursor
    logs = [read_lines(tmp_path / name / "train.jsonl") for name in ("alone", "killed")]
    measured = {"frames_per_second": 0, "peak_memory_mb": 0}
    assert [{**row, **measured} for row in logs[0]] == [{**row, **measured} for row in logs[1]]
