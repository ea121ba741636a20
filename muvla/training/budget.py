"""The learning-rate schedule as a fraction of the budget, and what a truncation length can and cannot credit.

Legend: U updates, K truncation length, H chunk, W window, B slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from muvla.config import BlockOrigin, BudgetConfig, DataConfig, OptimizerConfig
from muvla.data.store import EpisodeStore
from muvla.data.stream import SlotStream
from muvla.envs.phases import Phase
from muvla.training.truncation import block_starts


def learning_rate(optimizer: OptimizerConfig, update: int, updates: int) -> float:
    """Linear warm-up over `warmup·U` updates, then cosine from lr to final·lr (μVLA spec 5)."""
    warm = optimizer.warmup * updates
    if update < warm:
        return optimizer.lr * (update + 1) / (warm + 1)
    done = (update - warm) / max(1.0, updates - warm)
    return optimizer.lr * (optimizer.final + (1 - optimizer.final) * 0.5 * (1 + math.cos(math.pi * done)))


Truncation = tuple[int, BlockOrigin]  # K, and what it is counted from


@dataclass(frozen=True)
class Coverage:
    """Of what a cell's training stream can credit; counted on the stream itself, not derived from averages."""

    pairs: int  # cue-to-decision pairs: (last cue tick, first decision tick) of an episode
    inside_block: dict[Truncation, float]  # share of pairs whose two ticks lie in one truncation block
    delay_frames: int
    look_ahead: dict[int, float]  # H → share of delay frames whose chunk holds decision actions
    pieces: int  # of the datasets (`muvla.data.stream`) that begin
    frames: int
    parts: tuple[Coverage, ...] = ()  # the same of every dataset of a mixture


def coverage(
    store: EpisodeStore,
    data: DataConfig,
    budget: BudgetConfig,
    seed: int,
    truncations: Iterable[Truncation],
    chunks: Iterable[int],
    ticks: int = 4096,
) -> Coverage:
    """Walks the first `ticks` of every slot of the seed's stream, as many of them as fill whole windows. Raises
    MuvlaError for imported demonstrations, whose phases are unknown."""
    store.require_phases("coverage")
    no_text = lambda instructions: (np.zeros((len(instructions), 0)),) * 2  # noqa: E731 (the walk reads no text, and scales nothing)
    stream = SlotStream(store, data, None, no_text, slots=budget.slots, chunk=1, seed=seed)
    windows = max(1, min(ticks // budget.window, budget.updates))
    ticks = windows * budget.window
    episode, step, visit = stream.schedule(ticks)
    is_first = np.diff(visit, axis=0, prepend=-1) != 0
    phase = np.asarray(store["phase"])[store.starts[episode] + step]
    pairs: list[tuple[int, int, int]] = []  # last tick of the cue, first of the decision, slot
    for slot in range(budget.slots):
        last_cue = None
        for t in range(ticks):
            if is_first[t, slot]:
                last_cue = None
            if phase[t, slot] == Phase.CUE:
                last_cue = t
            elif phase[t, slot] == Phase.DECISION and last_cue is not None:
                pairs.append((last_cue, t, slot))
                last_cue = None
    cue, decision, slots = np.array(pairs, dtype=np.int64).reshape(-1, 3).T
    of_window = is_first.reshape(windows, budget.window, budget.slots).swapaxes(0, 1)
    same = {}
    for K, origin in truncations:
        begins = block_starts(of_window, K, origin).swapaxes(0, 1).reshape(is_first.shape)
        block = np.cumsum(begins, axis=0)  # number of each slot's block
        same[K, origin] = block[cue, slots] == block[decision, slots]

    def counted(which: np.ndarray, parts: tuple[Coverage, ...] = ()) -> Coverage:
        """Of the ticks (ticks, B) bool."""
        chosen = which[cue, slots]
        inside = {one: float(pair[chosen].mean()) if chosen.any() else float("nan") for one, pair in same.items()}
        delay = which & (phase == Phase.DELAY)
        ahead = _look_ahead(store, episode[delay], step[delay], chunks)
        begun, seen = int((is_first & which).sum()), int(which.sum())
        return Coverage(int(chosen.sum()), inside, int(delay.sum()), ahead, begun, seen, parts)

    several = len(store.parts) * (len(store.parts) > 1)
    dataset = np.searchsorted(np.cumsum([len(part) for part in store.parts]), episode, side="right")
    return counted(np.ones_like(is_first), tuple(counted(dataset == i) for i in range(several)))


def _look_ahead(store: EpisodeStore, episode: np.ndarray, step: np.ndarray, chunks: Iterable[int]) -> dict[int, float]:
    """H → share of these frames whose chunk holds decision actions."""
    frames, ends = store.starts[episode] + step, store.starts[episode] + store.lengths[episode]
    decision = np.asarray(store["phase"]) == Phase.DECISION
    shares = {}
    for h in chunks:
        entries = np.minimum(frames[:, None] + np.arange(h), ends[:, None] - 1)
        shares[h] = float(decision[entries].any(axis=1).mean()) if len(frames) else float("nan")
    return shares
