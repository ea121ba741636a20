"""Which part of a training stream a truncation length can credit.

Legend: U updates, K truncation length, H chunk, W window, B slots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from muvla.config import BlockOrigin, BudgetConfig, DataConfig
from muvla.data.store import EpisodeStore
from muvla.data.stream import SlotStream
from muvla.envs.phases import Phase
from muvla.training.truncation import find_block_starts

Truncation = tuple[int, BlockOrigin]  # K, and the tick that it is counted from


@dataclass(frozen=True)
class Coverage:
    """Counts over a cell's training stream, made on the stream itself and not derived from averages."""

    pairs: int  # cue-to-decision pairs: (last cue tick, first decision tick) of an episode
    inside_block: dict[Truncation, float]  # share of pairs whose two ticks lie in one truncation block
    delay_frames: int
    look_ahead: dict[int, float]  # H → share of delay frames whose chunk holds decision actions
    pieces: int  # pieces of the datasets (`muvla.data.stream`) that begin
    frames: int
    parts: tuple[Coverage, ...] = ()  # the same counts for every dataset of a mixture


def measure_coverage(
    store: EpisodeStore,
    data: DataConfig,
    budget: BudgetConfig,
    seed: int,
    truncations: Iterable[Truncation],
    chunks: Iterable[int],
    ticks: int = 4096,
) -> Coverage:
    """Counts the cue-to-decision pairs that lie inside one truncation block, by walking the stream's schedule.

    Args:
        store: the demonstrations.
        data: order and group of the stream.
        budget: W, B and U.
        seed: training seed of the stream.
        truncations: the (K, origin) to count for.
        chunks: the H to count the look-ahead share for.
        ticks: ticks to walk per slot, rounded down to whole windows and at most U windows.

    Raises:
        MuvlaError: the phases of the demonstrations are unknown (imported data).
    """
    store.require_phases("coverage")
    walk = _walk(store, data, budget, seed, ticks)
    cue, decision, slots = _pairs(walk.is_first, walk.phase)
    windows = walk.is_first.reshape(-1, budget.window, budget.slots).swapaxes(0, 1)
    same_block = {}
    for K, origin in truncations:
        begins = find_block_starts(windows, K, origin).swapaxes(0, 1).reshape(walk.is_first.shape)
        block = np.cumsum(begins, axis=0)  # number of each slot's block
        same_block[K, origin] = block[cue, slots] == block[decision, slots]
    chunks = tuple(chunks)

    def count(which: np.ndarray, parts: tuple[Coverage, ...] = ()) -> Coverage:
        """Counts over the chosen ticks, (ticks, B) bool."""
        chosen = which[cue, slots]
        inside = {key: float(pair[chosen].mean()) if chosen.any() else float("nan") for key, pair in same_block.items()}
        delay = which & (walk.phase == Phase.DELAY)
        ahead = _look_ahead(store, walk.episode[delay], walk.step[delay], chunks)
        begun, seen = int((walk.is_first & which).sum()), int(which.sum())
        return Coverage(int(chosen.sum()), inside, int(delay.sum()), ahead, begun, seen, parts)

    everywhere = np.ones_like(walk.is_first)
    if len(store.parts) == 1:
        return count(everywhere)
    dataset = np.searchsorted(np.cumsum([len(part) for part in store.parts]), walk.episode, side="right")
    return count(everywhere, tuple(count(dataset == i) for i in range(len(store.parts))))


@dataclass(frozen=True)
class _Walk:
    """The first ticks of every slot's stream, each array (ticks, B)."""

    episode: np.ndarray
    step: np.ndarray
    is_first: np.ndarray
    phase: np.ndarray


def _walk(store: EpisodeStore, data: DataConfig, budget: BudgetConfig, seed: int, ticks: int) -> _Walk:
    no_text = lambda instructions: (np.zeros((len(instructions), 0)),) * 2  # noqa: E731 (a schedule needs no text)
    stream = SlotStream(store, data, None, no_text, slots=budget.slots, chunk=1, seed=seed)
    windows = max(1, min(ticks // budget.window, budget.updates))
    episode, step, visit = stream.schedule(windows * budget.window)
    is_first = np.diff(visit, axis=0, prepend=-1) != 0
    return _Walk(episode, step, is_first, np.asarray(store["phase"])[store.starts[episode] + step])


def _pairs(is_first: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Returns (3, pairs): last tick of the cue, first tick of the decision, slot."""
    pairs: list[tuple[int, int, int]] = []
    for slot in range(is_first.shape[1]):
        last_cue = None
        for t in range(len(is_first)):
            if is_first[t, slot]:
                last_cue = None
            if phase[t, slot] == Phase.CUE:
                last_cue = t
            elif phase[t, slot] == Phase.DECISION and last_cue is not None:
                pairs.append((last_cue, t, slot))
                last_cue = None
    return np.array(pairs, dtype=np.int64).reshape(-1, 3).T


def _look_ahead(store: EpisodeStore, episode: np.ndarray, step: np.ndarray, chunks: Iterable[int]) -> dict[int, float]:
    """Returns H → share of these frames whose chunk holds decision actions."""
    frames, ends = store.starts[episode] + step, store.starts[episode] + store.lengths[episode]
    decision = np.asarray(store["phase"]) == Phase.DECISION
    shares = {}
    for h in chunks:
        entries = np.minimum(frames[:, None] + np.arange(h), ends[:, None] - 1)
        shares[h] = float(decision[entries].any(axis=1).mean()) if len(frames) else float("nan")
    return shares
