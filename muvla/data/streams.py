"""Slots: B endless streams of frames, cut into windows of W ticks.

Legend: W window ticks, B slots, V cameras, h×w image, Q proprio dim, T text, H chunk, A action dim.

Every slot plays pieces of the data in a random order of its own, all of them once before any of them again, and starts
at a random frame of its first one. A piece is a whole episode, so that a slot's next tick is its next frame; where the
order is `shuffled`, a piece is a single frame. Order and offsets are functions of (training seed, slot, pass), so cells
of one seed and order see the same frames whatever their memory, K or labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from muvla.config import DataConfig
from muvla.data.augmentation import Change, draw_change
from muvla.data.episodes import EpisodeStore
from muvla.data.statistics import Statistics
from muvla.errors import MuvlaError
from muvla.randomness import numpy_rng


@dataclass(frozen=True)
class Window:
    """W consecutive ticks of B slots: tensors for the model, arrays for the bookkeeping.

    Whatever else is known of a tick (task, target, both actions) stands in the store at its `frame` and `episode`.
    """

    images: Tensor  # (W, B, V, 3, h, w) uint8
    proprio: Tensor  # (W, B, Q) normalised
    text_ids: Tensor  # (W, B, T)
    text_lengths: Tensor  # (W, B)
    label: Tensor  # (W, B, H, A) normalised
    weight: Tensor  # (W, B, H) of each chunk entry's error: 1, or 0 where it is masked
    is_first: Tensor  # (W, B) bool: the memory starts here
    is_last: np.ndarray  # (W, B) bool
    action_is_pad: np.ndarray  # (W, B, H) bool: past the episode's end
    label_is_executed: np.ndarray | None  # (W, B, H) bool: the simulator applied this entry's action; None: unknown
    phase: np.ndarray  # (W, B)
    episode: np.ndarray  # (W, B) index into the store
    tick: np.ndarray  # (W, B) step of the episode
    frame: np.ndarray  # (W, B) row in the store
    visit: np.ndarray  # (W, B) how many pieces the slot has played before this one


class SlotStream:
    """`encode_text` maps a list of instructions to ids (n, T) and lengths (n,)."""

    def __init__(
        self,
        store: EpisodeStore,
        data: DataConfig,
        statistics: Statistics,
        encode_text: Callable[[list[str]], tuple[Any, Any]],
        *,
        slots: int,
        chunk: int,
        seed: int,
    ):
        self.store, self.data, self.slots, self.chunk, self.seed = store, data, slots, chunk, seed
        self._text_ids, self._text_lengths = encode_text([line["instruction"] for line in store.index])
        self._proprio = statistics.normalise_proprio(store["proprio"])
        if data.labels == "masked":
            store.require_executed("data.labels: masked")
        source = "executed_action" if data.labels == "executed" else "recorded_action"
        self._label = statistics.normalise_action(store[source])
        if data.order == "episodic":
            episodes, steps, self._lengths = np.arange(len(store)), np.zeros(len(store), np.int64), store.lengths
        else:
            episodes = np.repeat(np.arange(len(store)), store.lengths)
            steps = np.arange(len(episodes)) - store.starts[episodes]
            self._lengths = np.ones_like(episodes)
        self._pieces = episodes, steps  # the episode of each piece, and the first of its steps there
        self._order = lru_cache(maxsize=2 * slots)(self._draw_order)
        self._ticks = 0
        self._visit = [0] * slots
        self._step = [  # of the piece
            int(numpy_rng(seed, "start offset", slot).integers(self._lengths[self._order(slot, 0)[0]]))
            for slot in range(slots)
        ]

    def schedule(self, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Episode, step and visit, each (ticks, B), of the ticks to come; the stream stays where it is."""
        piece, step, visit, _ = self._walk(ticks)
        episodes, steps = self._pieces
        return episodes[piece], steps[piece] + step, visit

    def window(self, ticks: int) -> Window:
        """The next `ticks` ticks of every slot."""
        piece, played, visit, after = self._walk(ticks)
        episodes, steps = self._pieces
        episode, step = episodes[piece], steps[piece] + played
        is_first = played == 0
        if self._ticks == 0:  # also in the middle of an episode: there is no memory yet that could be continued
            is_first[0] = True
        self._ticks, self._visit, self._step = self._ticks + ticks, *after
        start, length = self.store.starts[episode], self.store.lengths[episode]
        frame = start + step
        ahead = step[..., None] + np.arange(self.chunk)  # step of chunk entry i
        is_pad = ahead >= length[..., None]
        entry = start[..., None] + np.minimum(ahead, length[..., None] - 1)
        is_executed = self.store.is_executed[entry] if self.store.knows_executed else None
        weight = np.ones(entry.shape, dtype=np.float32)
        if self.data.tail == "mask":
            weight[is_pad] = 0
        if self.data.labels == "masked":
            weight[~is_executed] = 0
        rows = torch.from_numpy(episode)
        return Window(
            images=torch.from_numpy(self._images(frame, start)).movedim(-1, -3),
            proprio=torch.from_numpy(self._proprio[frame]),
            text_ids=self._text_ids[rows],
            text_lengths=self._text_lengths[rows],
            label=torch.from_numpy(self._label[entry]),
            weight=torch.from_numpy(weight),
            is_first=torch.from_numpy(is_first),
            is_last=step == length - 1,
            action_is_pad=is_pad,
            label_is_executed=None if is_executed is None else is_executed & ~is_pad,
            phase=np.asarray(self.store["phase"][frame]),
            episode=episode,
            tick=step,
            frame=frame,
            visit=visit,
        )

    def _images(self, frame: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(W, B, V, h, w, 3): the chosen cameras, and if so declared the first image of the frame's episode."""
        images = self.store["images"]
        chosen = images[frame][:, :, : self.data.cameras]
        return np.concatenate([chosen, images[start][:, :, :1]], axis=2) if self.data.first_image else chosen

    def changes(self, window: Window) -> list[Change]:
        """What augmentation does to each of the window's images, tick by tick, slot by slot, camera by camera."""
        by_frame = self.data.augmentation == "frame"
        return [
            draw_change(self.seed, slot, int(window.visit[t, slot]), camera, *([int(window.tick[t, slot])] * by_frame))
            for t in range(len(window.tick))
            for slot in range(self.slots)
            for camera in range(window.images.shape[2])
        ]

    def state(self) -> dict[str, Any]:
        """Plain data from which `load_state` continues exactly here."""
        return {"ticks": self._ticks, "visit": list(self._visit), "step": list(self._step)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises MuvlaError for the state of a stream with another number of slots."""
        if len(state["visit"]) != self.slots:
            raise MuvlaError(
                "stream state", got=f"{len(state['visit'])} slots", expected=f"{self.slots} slots",
                remedy="keep budget.slots, or train in a new folder",
            )  # fmt: skip
        self._ticks, self._visit, self._step = state["ticks"], list(state["visit"]), list(state["step"])

    def _draw_order(self, slot: int, number: int) -> np.ndarray:
        """The pieces of a slot's pass over the data, in the order in which it plays them."""
        purpose = "episode order" if self.data.order == "episodic" else "frame order"
        return numpy_rng(self.seed, purpose, slot, number).permutation(len(self._lengths))

    def _walk(self, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[list[int], list[int]]]:
        """Piece, step of the piece and visit, each (ticks, B), and the (visits, steps) where the slots stand
        afterwards."""
        piece, step, visit = np.empty((3, ticks, self.slots), dtype=np.int64)
        visits, steps = list(self._visit), list(self._step)
        for slot in range(self.slots):
            for t in range(ticks):
                number, place = divmod(visits[slot], len(self._lengths))
                playing = self._order(slot, number)[place]
                piece[t, slot], step[t, slot], visit[t, slot] = playing, steps[slot], visits[slot]
                steps[slot] += 1
                if steps[slot] == self._lengths[playing]:
                    visits[slot], steps[slot] = visits[slot] + 1, 0
        return piece, step, visit, (visits, steps)
