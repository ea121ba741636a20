"""The error at the first step of the decision on demonstrations that no training plays (`data.held_out`).

Only the first step of a decision needs sight and memory, because later steps can be continued from the robot's own
pose. The error there, on episodes of the training and on held-out episodes, tells learning from learning by heart.

The measurement plays every held-out episode from its first frame to the first frame of its decision, with a memory of
its own. It draws nothing from the training's streams: noise of a head that denoises is keyed by slots that no training
has.

Legend: B slots, T ticks, H chunk, A action dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from muvla.config import DataConfig
from muvla.data.store import EpisodeStore
from muvla.data.stream import SlotStream, Window
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.models.diffusion import get_error
from muvla.models.preprocessing import prepare
from muvla.recurrence import Recurrence
from muvla.training.inputs import get_moment
from muvla.training.trainer import Trainer


class HeldOut:
    """The held-out demonstrations of a training, as its policy reads them."""

    def __init__(self, trainer: Trainer, store: EpisodeStore):
        """Finds the first decision of every episode.

        Args:
            trainer: its policy is measured, in batches of as many episodes as it has slots.
            store: the demonstrations of `data.held_out`.

        Raises:
            MuvlaError: the demonstrations have no decision, or other shapes than those of the training.
        """
        self.trainer = trainer
        _require_alike(store, trainer.stream.store)
        store.require_executed("data.held_out")
        frames = np.flatnonzero(np.asarray(store["phase"]) == Phase.DECISION)
        first = np.append(frames, store.frames)[np.searchsorted(frames, store.starts)] - store.starts
        self.episodes = np.flatnonzero(first < store.lengths)
        if not len(self.episodes):
            raise MuvlaError(
                "data.held_out",
                got=f"{store.name}, without a decision in any episode",
                expected="demonstrations with a decision",
                remedy="hold out demonstrations of the training's task",
            )
        self.first = first[self.episodes]
        self.slots = range(-len(trainer.slots), 0)  # numbers that no slot of a training has
        self.stream = SlotStream(
            store,
            _as_played(trainer.cell.data, store),
            trainer.statistics,
            trainer.policy.encode_text,
            slots=len(self.slots),
            chunk=trainer.cell.model.chunk,
            seed=trainer.cell.seed,
        )

    @torch.no_grad()
    def measure(self) -> float:
        """Returns the mean error of the next action at the first decision step, by the error of the training's loss."""
        total = 0.0
        for window, first, counted in self._batches():
            total += self._errors(window, first)[:counted].sum().item()
        return total / len(self.episodes)

    def _batches(self) -> Iterator[tuple[Window, np.ndarray, int]]:
        """Yields windows (T, B), the tick of each slot's first decision (B,), and the number of slots that count.

        A slot that has reached its decision repeats this frame. The last batch repeats its last episode.
        """
        size = len(self.slots)
        order = np.argsort(self.first, kind="stable")
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            padded = np.pad(chosen, (0, size - len(chosen)), mode="edge")
            first = self.first[padded]
            ticks = np.arange(first.max() + 1)[:, None]
            episode = np.broadcast_to(self.episodes[padded], (len(ticks), size))
            is_first = np.broadcast_to(ticks == 0, episode.shape).copy()
            window = self.stream.read(episode.copy(), np.minimum(ticks, first), episode.copy(), is_first)
            yield window, first, len(chosen)

    def _errors(self, window: Window, first: np.ndarray) -> Tensor:
        """Returns (B,): each slot's error of the next action at its first decision."""
        trainer, cell = self.trainer, self.trainer.cell
        recurrence = Recurrence(trainer.policy, len(self.slots), trainer.recurrence.intervention)
        store = None if recurrence.intervention is None else self.stream.store
        errors = torch.zeros(len(self.slots))
        for t in range(len(window.phase)):
            images = prepare(trainer.to_device(window.images[t]), cell.model.size.image_size, cell.model.images)
            inputs = (window.proprio[t], window.text_ids[t], window.text_lengths[t])
            encoded = trainer.policy.encode_prepared(images, *(trainer.to_device(tensor) for tensor in inputs))
            label = trainer.to_device(window.label[t])
            noise = trainer.add_label_noise(label, window, t, self.slots)
            moment = get_moment(window, t, self.slots, cell.seed, store)
            output, _ = recurrence.tick(encoded, trainer.to_device(window.is_first[t]), moment, noised=noise)
            error = get_error(output.actions, label, noise)[:, 0].float().mean(dim=-1).cpu()
            errors = torch.where(torch.from_numpy(first == t), error, errors)
        return errors


def _as_played(data: DataConfig, store: EpisodeStore) -> DataConfig:
    """Returns the training's data configuration for whole held-out episodes, frame by frame."""
    return replace(
        data,
        dataset=store.spec,
        mixture=(),
        balance="episode",
        order="episodic",
        group_padding="none",
        decision_steps=None,
        augmentation="none",
        held_out=None,
    )


def _require_alike(store: EpisodeStore, trained: EpisodeStore) -> None:
    """Raises MuvlaError for frames or actions of other shapes than those of the training."""
    for column in ("images", "proprio", "recorded_action"):
        got, expected = store[column].shape[1:], trained[column].shape[1:]
        if got != expected:
            raise MuvlaError(
                "data.held_out",
                got=f"{column} of shape {got}",
                expected=f"{expected}, as in {trained.name}",
                remedy="give data.held_out the image size and a task of the training's data",
            )
