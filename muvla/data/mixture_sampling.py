"""Which dataset of a mixture a slot plays next, such that all have equal shares of what `data.balance` names.

A slot plays rounds. In the rounds up to r it plays floor(r·c + u) pieces of a dataset, where c is the dataset's pieces
per round and u a number in [0, 1) that is drawn per slot and dataset. So after every round the datasets are where their
shares say, up to one piece, at any length of training; the order within a round is drawn. The rarest dataset of a round
has c = 1. The published loader draws the dataset of every episode at random instead: the same shares in expectation.

Legend: D datasets.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from muvla.config import DataConfig
from muvla.data.store import EpisodeStore
from muvla.utils.rng import numpy_rng

DRAWN = 32  # rounds that are drawn at once


def pieces_per_round(store: EpisodeStore, data: DataConfig) -> np.ndarray:
    """(D,) how often each dataset's pieces are played, relative to the rarest.

    `episode`: equally many episodes of every dataset, so that a dataset's share of the frames is proportional to the
    mean length of what is played of its episodes. `frame`: equally many frames. Where the order is `shuffled` a piece
    is a frame, and the datasets have the shares of frames that they have in episodic cells: a memoryless baseline is
    trained on the same mixture.
    """
    lengths = [part.lengths for part in store.parts]
    episode = np.array([one.mean() for one in lengths])
    grouped = np.array([np.minimum(one, data.group).mean() for one in lengths])
    frames = {"episodic": episode, "grouped": grouped, "shuffled": np.ones(len(lengths))}[data.order]  # of a piece
    wanted = (episode if data.order == "shuffled" else frames) if data.balance == "episode" else np.ones(len(lengths))
    often = wanted / frames
    return often / often.min()


class Rounds:
    """`rounds.at(slot, visit)` is the dataset of a slot's piece, and how many of its pieces the slot has played
    before. A function of (seed, slot, visit)."""

    def __init__(self, often: np.ndarray, seed: int):
        self._often, self._seed = often, seed
        self._pieces = DRAWN * float(often.sum())  # of DRAWN rounds, on average
        self._phase = lru_cache(maxsize=None)(self._draw_phase)
        self._rounds = lru_cache(maxsize=1024)(self._draw_rounds)

    def at(self, slot: int, visit: int) -> tuple[int, int]:
        if len(self._often) == 1:
            return 0, visit
        number = int(visit / self._pieces)  # give or take one
        while visit < (first := self._rounds(slot, number)[0]):
            number -= 1
        while visit >= first + len(pieces := self._rounds(slot, number)[1]):
            number, first = number + 1, first + len(pieces)
        return pieces[visit - first]

    def _draw_phase(self, slot: int) -> np.ndarray:
        return numpy_rng(self._seed, "mixture phase", slot).random(len(self._often))

    def _draw_rounds(self, slot: int, number: int) -> tuple[int, list[tuple[int, int]]]:
        """The visit that the number-th DRAWN rounds begin with, and their pieces."""
        rounds = DRAWN * number + np.arange(DRAWN + 1)
        played = np.floor(rounds[:, None] * self._often + self._phase(slot)).astype(np.int64)  # (DRAWN + 1, D) before
        own = np.diff(played, axis=0)
        dataset = np.repeat(np.tile(np.arange(own.shape[1]), DRAWN), own.ravel())
        of_round = np.repeat(np.arange(DRAWN), own.sum(axis=1))
        drawn = numpy_rng(self._seed, "mixture rounds", slot, number).random(len(dataset))
        dataset = dataset[np.lexsort((drawn, of_round))]
        nth = np.empty_like(dataset)
        for d, before in enumerate(played[0]):
            nth[dataset == d] = before + np.arange((dataset == d).sum())
        return int(played[0].sum()), list(zip(dataset.tolist(), nth.tolist(), strict=True))
