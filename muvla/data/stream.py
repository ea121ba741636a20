"""Slots: B endless streams of frames, cut into windows of W ticks.

Legend: W window ticks, B slots, V cameras, h×w image, Q proprio dim, T text, H chunk, A action dim.

Every slot plays pieces of the data in a random order of its own, all of them once before any of them again, and starts
at a random frame of its first one. A piece is a whole episode, so that a slot's next tick is its next frame; where the
order is `grouped`, some frames of an episode, others at every visit; where it is `shuffled`, a single frame. The
datasets of a mixture are each played so, in turns that balance them (`muvla.data.mixture_sampling`). All draws are
functions of (training seed, slot, pass or visit), so cells of one seed and order see the same frames whatever their
memory, K or labels.
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
from muvla.data.mixture_sampling import Rounds, pieces_per_round
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError
from muvla.utils.rng import numpy_rng


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
    features: Tensor | None = None  # (W·B, V, P, F) what frozen towers make of the images, where that is stored


class SlotStream:
    """`encode_text` maps a list of instructions to ids (n, T) and lengths (n,). Windows hold the `own`
    ones of all slots alone, and B is their number there; where a slot stands is known of all. A stream whose schedule
    alone is wanted needs no statistics."""

    def __init__(
        self,
        store: EpisodeStore,
        data: DataConfig,
        statistics: Statistics | None,
        encode_text: Callable[[list[str]], tuple[Any, Any]],
        *,
        slots: int,
        chunk: int,
        seed: int,
        local_slots: range | None = None,
    ):
        self.store, self.data, self.slots, self.chunk, self.seed = store, data, slots, chunk, seed
        self.local_slots = range(slots) if local_slots is None else local_slots
        self._text_ids, self._text_lengths = encode_text([line["instruction"] for line in store.index])
        self._statistics = statistics
        if data.labels != "recorded":
            store.require_executed(f"data.labels: {data.labels}")
        self._label = store["executed_action" if data.labels == "executed" else "recorded_action"]
        self._rounds = Rounds(pieces_per_round(store, data), seed)
        self._first = np.cumsum([0, *(len(part) for part in store.parts)])  # episode of each dataset
        # One is at hand per slot and dataset, of 4 bytes per piece.
        self._order = lru_cache(maxsize=slots * len(store.parts))(self._draw_order)
        self._piece = lru_cache(maxsize=2 * slots)(self._draw_piece)
        self._ticks = 0
        self._visit = [0] * slots
        self._step = [  # place in the piece
            int(numpy_rng(seed, "start offset", slot).integers(len(self._piece(slot, 0)[1]))) for slot in range(slots)
        ]

    def schedule(self, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Episode, step and visit, each (ticks, B), of the ticks to come; the stream stays where it is."""
        episode, step, visit, *_ = self._walk(ticks)
        return episode, step, visit

    def window(self, ticks: int) -> Window:
        """The next `ticks` ticks of every slot."""
        episode, step, visit, is_first, after = self._walk(ticks)
        if self._ticks == 0:  # also in the middle of an episode: there is no memory yet that could be continued
            is_first[0] = True
        self._ticks, self._visit, self._step = self._ticks + ticks, *after
        episode, step, visit, is_first = (array[:, self.local_slots] for array in (episode, step, visit, is_first))
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
            proprio=torch.from_numpy(self._statistics.normalise_proprio(self.store["proprio"][frame])),
            text_ids=self._text_ids[rows],
            text_lengths=self._text_lengths[rows],
            label=torch.from_numpy(self._statistics.normalise_action(self._label[entry])),
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
            draw_change(self.seed, slot, int(window.visit[t, i]), camera, *([int(window.tick[t, i])] * by_frame))
            for t in range(len(window.tick))
            for i, slot in enumerate(self.local_slots)
            for camera in range(window.images.shape[2])
        ]

    def state(self) -> dict[str, Any]:
        """Plain data from which `load_state` continues exactly here."""
        return {"ticks": self._ticks, "visit": list(self._visit), "step": list(self._step)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises MuvlaError for the state of a stream with another number of slots."""
        if len(state["visit"]) != self.slots:
            raise MuvlaError(
                "stream state",
                got=f"{len(state['visit'])} slots",
                expected=f"{self.slots} slots",
                remedy="keep budget.slots, or train in a new folder",
            )
        self._ticks, self._visit, self._step = state["ticks"], list(state["visit"]), list(state["step"])

    def _draw_order(self, slot: int, number: int, dataset: int) -> np.ndarray:
        """The pieces of a slot's pass over a dataset, numbered there, in the order in which it plays them."""
        part, which = self.store.parts[dataset], (dataset,) * (dataset > 0)
        if self.data.order == "shuffled":
            return numpy_rng(self.seed, "frame order", slot, number, *which).permutation(part.frames).astype(np.uint32)
        return numpy_rng(self.seed, "episode order", slot, number, *which).permutation(len(part)).astype(np.uint32)

    def _draw_piece(self, slot: int, visit: int) -> tuple[int, np.ndarray]:
        """The episode of a slot's piece, and its steps that are played."""
        dataset, played = self._rounds.at(slot, visit)
        part = self.store.parts[dataset]
        number, place = divmod(played, part.frames if self.data.order == "shuffled" else len(part))
        piece, first = int(self._order(slot, number, dataset)[place]), int(self._first[dataset])
        if self.data.order == "shuffled":
            frame = piece + self.store.starts[first]
            episode = int(np.searchsorted(self.store.starts, frame, side="right")) - 1
            return episode, np.array([frame - self.store.starts[episode]])
        piece += first
        steps = np.arange(self.store.lengths[piece])
        if self.data.order == "grouped" and len(steps) > self.data.group:
            drawn = numpy_rng(self.seed, "group", slot, visit).choice(steps, self.data.group, replace=False)
            steps = np.sort(drawn)
        return piece, steps

    def _walk(self, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[list[int], list[int]]]:
        """Episode, step, visit and whether a piece begins, each (ticks, B), and the (visits, places in the piece) where
        the slots stand afterwards."""
        episode, step, visit, place = np.empty((4, ticks, self.slots), dtype=np.int64)
        visits, places = list(self._visit), list(self._step)
        for slot in range(self.slots):
            for t in range(ticks):
                playing, steps = self._piece(slot, visits[slot])
                episode[t, slot], step[t, slot] = playing, steps[places[slot]]
                visit[t, slot], place[t, slot] = visits[slot], places[slot]
                places[slot] += 1
                if places[slot] == len(steps):
                    visits[slot], places[slot] = visits[slot] + 1, 0
        return episode, step, visit, place == 0, (visits, places)
