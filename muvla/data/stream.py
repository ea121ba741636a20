"""Slots: B endless streams of frames, cut into windows of W ticks.

Legend: W window ticks, B slots, V cameras, h×w image, Q proprio dim, T text, H chunk, A action dim.

Every slot plays pieces of the data in its own random order, all pieces once before any piece again. A slot starts at a
random frame of its first piece, or at the first where groups are padded. With the order `episodic` a piece is a whole
episode, so a slot's next tick is its next frame. With `grouped` a piece is some frames of an episode, drawn anew at
every visit. With `shuffled` a piece is a single frame. Each dataset of a mixture is played so, in turns that balance
the datasets (`muvla.data.mixture_sampling`). All draws are functions of (training seed, slot, pass or visit). So cells
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
from muvla.data.cameras import get_camera_numbers
from muvla.data.mixture_sampling import Rounds, get_pieces_per_round
from muvla.data.normalization import Statistics
from muvla.data.played import Played
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.envs.target_words import add_target
from muvla.errors import MuvlaError
from muvla.utils.rng import numpy_rng


@dataclass(frozen=True)
class Window:
    """W consecutive ticks of B slots: tensors for the model, arrays for the bookkeeping.

    Other facts about a tick (task, target, both actions) stand in the store at its `frame` and `episode`.
    """

    images: Tensor  # (W, B, V, 3, h, w) uint8
    proprio: Tensor  # (W, B, Q) normalised
    text_ids: Tensor  # (W, B, T)
    text_lengths: Tensor  # (W, B)
    label: Tensor  # (W, B, H, A) normalised
    weight: Tensor  # (W, B, H) weight of each chunk entry's error: 1, or 0 where the entry is masked
    is_first: Tensor  # (W, B) bool: the memory starts at this tick
    is_last: np.ndarray  # (W, B) bool
    action_is_pad: np.ndarray  # (W, B, H) bool: past the episode's end
    label_is_executed: np.ndarray | None  # (W, B, H) bool: the simulator applied this entry's action; None: unknown
    phase: np.ndarray  # (W, B)
    starts_decision: np.ndarray  # (W, B) bool: the first step of the episode's decision
    episode: np.ndarray  # (W, B) index into the store
    tick: np.ndarray  # (W, B) step of the episode
    frame: np.ndarray  # (W, B) row in the store
    visit: np.ndarray  # (W, B) number of pieces that the slot has played before
    features: Tensor | None = None  # (W·B, V, P, F) cached features of frozen towers


class SlotStream:
    """The endless streams of all slots."""

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
        """Starts every slot at a random frame.

        Args:
            store: the demonstrations.
            data: order, labels, tail and cameras.
            statistics: scales of actions and proprio; None for a stream that only gives its schedule.
            encode_text: maps n instructions to ids (n, T) and lengths (n,).
            slots: number of slots of the whole training.
            chunk: H.
            seed: training seed.
            local_slots: the slots that windows hold; all by default. The schedule covers all slots in any case.

        Raises:
            MuvlaError: the labels need executed actions, and the store does not record them.
        """
        self.store, self.data, self.slots, self.chunk, self.seed = store, data, slots, chunk, seed
        self.local_slots = range(slots) if local_slots is None else local_slots
        self._text_ids, self._text_lengths = encode_text(
            [add_target(line) if data.instruction == "with_target" else line["instruction"] for line in store.index]
        )
        self._statistics = statistics
        if data.labels != "recorded":
            store.require_executed(f"data.labels: {data.labels}")
        self._label = store["executed_action" if data.labels == "executed" else "recorded_action"]
        self._cameras = list(get_camera_numbers(store, data))
        self._played = Played(store, data)
        self._rounds = Rounds(get_pieces_per_round(store, data), seed)
        self._first = np.cumsum([0, *(len(part) for part in store.parts)])  # episode of each dataset
        # The cache holds an order per slot and dataset, 4 bytes per piece.
        self._order = lru_cache(maxsize=slots * len(store.parts))(self._draw_order)
        self._piece = lru_cache(maxsize=2 * slots)(self._draw_piece)
        self._ticks, self._visit = 0, [0] * slots
        self._step = [self._draw_start(slot) for slot in range(slots)]  # place in the piece

    def schedule(self, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns episode, step and visit, each (ticks, B), of the next ticks; the stream stays where it is."""
        episode, step, visit, *_ = self._walk(ticks)
        return episode, step, visit

    def window(self, ticks: int) -> Window:
        """Returns the next `ticks` ticks of every local slot and moves the stream on."""
        episode, step, visit, is_first, after = self._walk(ticks)
        if self._ticks == 0:  # also in the middle of an episode, because no memory exists yet
            is_first[0] = True
        self._ticks, self._visit, self._step = self._ticks + ticks, *after
        return self.read(*(array[:, self.local_slots] for array in (episode, step, visit, is_first)))

    def read(self, episode: np.ndarray, step: np.ndarray, visit: np.ndarray, is_first: np.ndarray) -> Window:
        """Returns the window of these frames; the stream stays where it is.

        Args:
            episode: (W, B) index into the store.
            step: (W, B) step of the episode.
            visit: (W, B) number of pieces that the slot has played before.
            is_first: (W, B) bool, the memory starts at this tick.
        """
        start, length = self.store.starts[episode], self.store.lengths[episode]
        frame = start + step
        ahead = step[..., None] + np.arange(self.chunk)  # step of chunk entry i
        is_pad = ahead >= length[..., None]
        entry = start[..., None] + np.minimum(ahead, length[..., None] - 1)
        is_executed = self.store.is_executed[entry] if self.store.knows_executed else None
        label = self._statistics.normalise_action(self._label[entry])
        if self.data.tail == "still":
            label = np.where(is_pad[..., None], self._statistics.normalise_still(label), label)
        weight = np.ones(entry.shape, dtype=np.float32)
        if self.data.tail == "mask":
            weight[is_pad] = 0
        if self.data.labels == "masked":
            weight[~is_executed] = 0
        phase, before = (np.asarray(self.store["phase"][f]) for f in (frame, np.maximum(frame - 1, 0)))
        starts_decision = (phase == Phase.DECISION) & ((step == 0) | (before != Phase.DECISION))
        rows = torch.from_numpy(episode)
        return Window(
            images=torch.from_numpy(self._images(frame, start)).movedim(-1, -3),
            proprio=torch.from_numpy(self._statistics.normalise_proprio(self.store["proprio"][frame])),
            text_ids=self._text_ids[rows],
            text_lengths=self._text_lengths[rows],
            label=torch.from_numpy(label),
            weight=torch.from_numpy(weight),
            is_first=torch.from_numpy(is_first),
            is_last=step == self._played.lengths[episode] - 1,
            action_is_pad=is_pad,
            label_is_executed=None if is_executed is None else is_executed & ~is_pad,
            phase=phase,
            starts_decision=starts_decision,
            episode=episode,
            tick=step,
            frame=frame,
            visit=visit,
        )

    def _images(self, frame: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Returns (W, B, V, h, w, 3): the chosen cameras and, if the cell declares it, the episode's first image."""
        images = self.store["images"]
        chosen = images[frame][:, :, self._cameras]
        return (
            np.concatenate([chosen, images[start][:, :, self._cameras[:1]]], axis=2)
            if self.data.first_image
            else chosen
        )

    def changes(self, window: Window) -> list[Change]:
        """Returns the augmentation of each of the window's images, tick by tick, slot by slot, camera by camera."""
        by_frame = self.data.augmentation == "frame"
        return [
            draw_change(
                self.seed,
                slot,
                int(window.visit[t, i]),
                camera,
                *([int(window.tick[t, i])] if by_frame else []),
                diagonal=self.data.crop == "diagonal",
            )
            for t in range(len(window.tick))
            for i, slot in enumerate(self.local_slots)
            for camera in range(window.images.shape[2])
        ]

    def state(self) -> dict[str, Any]:
        """Returns plain data from which `load_state` continues exactly here."""
        return {"ticks": self._ticks, "visit": list(self._visit), "step": list(self._step)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from a state. Raises MuvlaError if the state has another number of slots."""
        if len(state["visit"]) != self.slots:
            raise MuvlaError(
                "stream state",
                got=f"{len(state['visit'])} slots",
                expected=f"{self.slots} slots",
                remedy="keep budget.slots, or train in a new folder",
            )
        self._ticks, self._visit, self._step = state["ticks"], list(state["visit"]), list(state["step"])

    def _draw_order(self, slot: int, number: int, dataset: int) -> np.ndarray:
        """Returns the pieces of a slot's pass over a dataset, numbered within the dataset, in the order of playing."""
        part, key = self.store.parts[dataset], (dataset,) if dataset > 0 else ()
        if self.data.order == "shuffled":
            frames = self._played.frames[dataset]
            return numpy_rng(self.seed, "frame order", slot, number, *key).permutation(frames).astype(np.uint32)
        return numpy_rng(self.seed, "episode order", slot, number, *key).permutation(len(part)).astype(np.uint32)

    def _draw_start(self, slot: int) -> int:
        """Returns the place in the first piece at which a slot starts."""
        if self.data.order == "grouped" and self.data.group_padding == "repeat":
            return 0
        return int(numpy_rng(self.seed, "start offset", slot).integers(len(self._piece(slot, 0)[1])))

    def _draw_piece(self, slot: int, visit: int) -> tuple[int, np.ndarray]:
        """Returns the episode of a slot's piece, and the steps of the episode that are played."""
        dataset, played = self._rounds.at(slot, visit)
        part = self.store.parts[dataset]
        number, place = divmod(played, self._played.frames[dataset] if self.data.order == "shuffled" else len(part))
        piece, first = int(self._order(slot, number, dataset)[place]), int(self._first[dataset])
        if self.data.order == "shuffled":
            frame = piece + self._played.starts[first]
            episode = int(np.searchsorted(self._played.starts, frame, side="right")) - 1
            return episode, np.array([frame - self._played.starts[episode]])
        piece += first
        steps = np.arange(self._played.lengths[piece])
        if self.data.order == "grouped" and len(steps) > self.data.group:
            drawn = numpy_rng(self.seed, "group", slot, visit).choice(steps, self.data.group, replace=False)
            steps = np.sort(drawn)
        if self.data.order == "grouped" and self.data.group_padding == "repeat":
            steps = np.pad(steps, (0, self.data.group - len(steps)), mode="edge")
        return piece, steps

    def _walk(self, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[list[int], list[int]]]:
        """Returns episode, step, visit and is_first, each (ticks, B), and the (visits, places in the piece)
        afterwards."""
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
