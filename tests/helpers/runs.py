"""A cell trained in its run folder, and one step of a policy on a stream's frames."""

from __future__ import annotations

import torch

from muvla.runs.run import Run
from muvla.runs.train import train_cell
from sweeps.cells import train_id


def trained(cell, store, root) -> Run:
    run = Run(root / "runs", store.path.parent, train_id(cell, store))
    with run.working():
        train_cell(run, cell, store, "cpu")
    return run


def one_step(policy, stream):
    window = stream.window(1)
    frames = (t.flatten(0, 1) for t in (window.images, window.proprio))
    text = policy.encode_text(["Touch the marked disc."] * 4)
    with torch.no_grad():
        return policy.step(policy.encode(*frames, *text), policy.memory.read(policy.memory.init_state(4)).tokens)
