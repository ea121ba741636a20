"""The dataset of a mixture that a slot plays next, so that all datasets have equal shares of `data.balance`.

A slot plays rounds. In the first r rounds it plays floor(r·c + u) pieces of a dataset. Here c is the dataset's pieces
per round and u a number in [0, 1) drawn per slot and dataset. So after every round the datasets have their shares, up
to one piece, at any length of training. The order within a round is drawn. The rarest dataset of a round has c = 1. The
published loader draws the dataset of every episode at random instead: the same shares in expectation.

Legend: D datasets.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from muvla.config import DataConfig
from muvla.data.played import get_played_lengths
from muvla.data.store import EpisodeStore
from muvla.utils.rng import numpy_rng

ROUNDS = 32  # rounds that are drawn at once


def get_pieces_per_round(store: EpisodeStore, data: DataConfig) -> np.ndarray:
    """Returns (D,): how often each dataset's pieces are played, relative to the rarest.

    `episode` plays equally many episodes of every dataset, so a dataset's share of frames is proportional to the mean
    played length of its episodes. `frame` plays equally many frames. With the order `shuffled` a piece is a frame, and
    the datasets have the shares of frames of episodic cells: a memoryless baseline trains on the same mixture.
    """
    lengths = [get_played_lengths(part, data) for part in store.parts]
    episode = np.array([length.mean() for length in lengths])
    padded = data.group_padding == "repeat"
    grouped = np.array([data.group if padded else np.minimum(length, data.group).mean() for length in lengths])
    frames = {"episodic": episode, "grouped": grouped, "shuffled": np.ones(len(lengths))}[data.order]  # per piece
    share = (episode if data.order == "shuffled" else frames) if data.balance == "episode" else np.ones(len(lengths))
    frequency = share / frames
    return frequency / frequency.min()


class Rounds:
    """The pieces of every slot, as a function of (seed, slot, visit)."""

    def __init__(self, frequency: np.ndarray, seed: int):
        self._frequency, self._seed = frequency, seed
        self._pieces = ROUNDS * float(frequency.sum())  # mean number of pieces in ROUNDS rounds
        self._phase = lru_cache(maxsize=None)(self._draw_phase)
        self._rounds = lru_cache(maxsize=1024)(self._draw_rounds)

    def at(self, slot: int, visit: int) -> tuple[int, int]:
        """Returns the dataset of the slot's piece, and how many of its pieces the slot has played before."""
        if len(self._frequency) == 1:
            return 0, visit
        number = int(visit / self._pieces)  # correct to ±1
        while visit < (first := self._rounds(slot, number)[0]):
            number -= 1
        while visit >= first + len(pieces := self._rounds(slot, number)[1]):
            number, first = number + 1, first + len(pieces)
        return pieces[visit - first]

    def _draw_phase(self, slot: int) -> np.ndarray:
        return numpy_rng(self._seed, "mixture phase", slot).random(len(self._frequency))

    def _draw_rounds(self, slot: int, number: int) -> tuple[int, list[tuple[int, int]]]:
        """Returns the first visit of the number-th ROUNDS rounds, and their pieces."""
        rounds = ROUNDS * number + np.arange(ROUNDS + 1)
        played = np.floor(rounds[:, None] * self._frequency + self._phase(slot)).astype(np.int64)  # (ROUNDS + 1, D)
        counts = np.diff(played, axis=0)
        dataset = np.repeat(np.tile(np.arange(counts.shape[1]), ROUNDS), counts.ravel())
        of_round = np.repeat(np.arange(ROUNDS), counts.sum(axis=1))
        drawn = numpy_rng(self._seed, "mixture rounds", slot, number).random(len(dataset))
        dataset = dataset[np.lexsort((drawn, of_round))]
        nth = np.empty_like(dataset)
        for d, before in enumerate(played[0]):
            nth[dataset == d] = before + np.arange((dataset == d).sum())
        return int(played[0].sum()), list(zip(dataset.tolist(), nth.tolist(), strict=True))
