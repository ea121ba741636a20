"""The learning rate of each update, as a fraction of the training's length.

Legend: U updates.
"""

from __future__ import annotations

import math

from muvla.config import OptimizerConfig

PUBLISHED_START = 0.1  # fraction of lr


def get_learning_rate(optimizer: OptimizerConfig, update: int, updates: int) -> float:
    """Returns the rate of `update` (from 0) of U `updates`: linear warm-up, then a cosine (μVLA spec 5).

    The warm-up takes `warmup·U` updates, and starts at `lr/10` with `warmup_from=tenth`. The cosine falls from `lr` to
    `final·lr`.
    """
    warm = optimizer.warmup * updates
    if update < warm and optimizer.warmup_from == "tenth":
        return optimizer.lr * (PUBLISHED_START + (1 - PUBLISHED_START) * update / warm)
    if update < warm:
        return optimizer.lr * (update + 1) / (warm + 1)
    done = (update - warm) / max(1.0, updates - warm)
    return optimizer.lr * (optimizer.final + (1 - optimizer.final) * 0.5 * (1 + math.cos(math.pi * done)))
