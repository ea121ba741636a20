"""The learning-rate schedule as a fraction of the budget, and what a truncation length can and cannot credit.

Legend: U updates, K truncation length, H chunk, W window, B slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from muvla.config import BudgetConfig, DataConfig, OptimizerConfig
from muvla.data.episodes import EpisodeStore
from muvla.data.statistics import Statistics
from muvla.data.streams import SlotStream
from muvla.envs.phases import Phase


def learning_rate(optimizer: OptimizerConfig, update: int, updates: int) -> float:
    """Linear warm-up over `warmup·U` updates, then cosine from lr to final·lr (μVLA spec 5)."""
    warm = optimizer.warmup * updates
    if update < warm:
        return optimizer.lr * (update + 1) / (warm + 1)
    done = (update - warm) / max(1.0, updates - warm)
    return optimizer.lr * (optimizer.final + (1 - optimizer.final) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Coverage:
    """Of what a cell's training stream can credit; counted on the stream itself, not derived from averages."""

    pairs: int  # cue-to-decision pairs: (last cue tick, first decision tick) of an episode
    inside_block: dict[int, float]  # K → share of pairs whose two ticks lie in one truncation block
    delay_frames: int
    look_ahead: dict[int, float]  # H → share of delay frames whose chunk holds decision actions


def coverage(
    store: EpisodeStore,
    data: DataConfig,
    statistics: Statistics,
    budget: BudgetConfig,
    seed: int,
    truncations: Iterable[int],
    chunks: Iterable[int],
    ticks: int = 4096,
) -> Coverage:
    """Walks the first `ticks` of every slot of the seed's stream.

    Blocks are aligned to the window, so a pair at ticks s < t lies in one block of K exactly if ⌊s/K⌋ = ⌊t/K⌋. Raises
    MuvlaError for imported demonstrations, whose phases are unknown.
    """
    store.require_executed("coverage")
    no_text = lambda instructions: (np.zeros((len(instructions), 0)),) * 2  # noqa: E731 (the walk reads no text)
    stream = SlotStream(store, data, statistics, no_text, slots=budget.slots, chunk=1, seed=seed)
    ticks = min(ticks, budget.updates * budget.window)
    episode, step, _ = stream.schedule(ticks)
    starts, lengths = store.starts, store.lengths
    phase = np.asarray(store["phase"])[starts[episode] + step]
    pairs: list[tuple[int, int]] = []
    for slot in range(budget.slots):
        last_cue = None
        for t in range(ticks):
            if step[t, slot] == 0:
                last_cue = None
            if phase[t, slot] == Phase.CUE:
                last_cue = t
            elif phase[t, slot] == Phase.DECISION and last_cue is not None:
                pairs.append((last_cue, t))
                last_cue = None
    blocks = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    inside = {
        k: float(np.mean(blocks[:, 0] // k == blocks[:, 1] // k)) if len(blocks) else float("nan") for k in truncations
    }
    return Coverage(len(blocks), inside, *_look_ahead(store, episode, step, phase, lengths, starts, chunks))


def _look_ahead(store, episode, step, phase, lengths, starts, chunks) -> tuple[int, dict[int, float]]:
    delay = phase == Phase.DELAY
    frames, ends = starts[episode[delay]] + step[delay], starts[episode[delay]] + lengths[episode[delay]]
    decision = np.asarray(store["phase"]) == Phase.DECISION
    shares = {}
    for h in chunks:
        entries = np.minimum(frames[:, None] + np.arange(h), ends[:, None] - 1)
        shares[h] = float(decision[entries].any(axis=1).mean()) if len(frames) else float("nan")
    return len(frames), shares
