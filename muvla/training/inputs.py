"""Inputs of a training tick beside the window: prepared images, noise for a head that denoises, and the moment.

Legend: B slots, W window ticks, V cameras, s pixels, R draws, H chunk, A action dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from muvla.config import Cell
from muvla.data.augmentation import Change, augment
from muvla.data.store import EpisodeStore
from muvla.data.stream import Window
from muvla.envs.phases import Phase, events
from muvla.models.diffusion import STEPS, Noised, add_noise, draw_noise, draw_noises
from muvla.models.expert_sampling import mix
from muvla.models.preprocessing import prepare
from muvla.recurrence import Moment
from muvla.utils.rng import key, torch_rng


def prepare_images(images: Tensor, cell: Cell, changes: Callable[[], list[Change]]) -> Tensor:
    """Returns (W·B, V, 3, s, s) uint8: the images as the vision towers see them, augmented where the cell says so.

    Args:
        images: (W·B, V, 3, h, w) uint8, as stored.
        cell: declares preprocessing and augmentation.
        changes: returns one change per image; called only with augmentation.
    """
    model = cell.model
    if cell.data.augmentation == "none":
        return prepare(images, model.size.image_size, model.images)
    images = prepare(images, model.size.image_size, "resized")  # a random crop replaces the central one
    return augment(images.flatten(0, 1), changes()).unflatten(0, images.shape[:2])


def add_label_noise(label: Tensor, window: Window, t: int, slots: Sequence[int], seed: int) -> Noised:
    """Adds noise to the labels of tick `t`, for a diffusion head.

    Noise and noise level are keyed by (training seed, slot, visit, step), so every cell of a seed draws the same noise
    whatever its window.

    Args:
        label: (B, H, A) normalised actions.
        window: gives visit and step of every slot.
        t: tick of the window.
        slots: numbers of these slots among all slots of the training.
        seed: training seed.
    """
    rng = partial(torch_rng, seed)
    _, chunk, action_dim = label.shape
    keys = [(slot, int(window.visit[t, i]), int(window.tick[t, i])) for i, slot in enumerate(slots)]
    noise = [draw_noise(chunk, action_dim, partial(rng, "noise", *key)) for key in keys]
    time = [torch.randint(STEPS, (), generator=rng("noise time", *key)) for key in keys]
    return add_noise(label, torch.stack(noise), torch.stack(time))


def add_expert_noise(label: Tensor, window: Window, t: int, slots: Sequence[int], cell: Cell) -> Noised:
    """Adds noise to the labels of tick `t` in R independent draws, and drops the condition of some (MemoryVLA spec 3).

    Noise, noise level and dropping are keyed by (training seed, slot, visit, step). Rows are ordered draw by draw: row
    r·B + b is draw r of slot b.

    Args:
        label: (B, H, A) normalised actions.
        window: gives visit and step of every slot.
        t: tick of the window.
        slots: numbers of these slots among all slots of the training.
        cell: gives the training seed and the expert.
    """
    rng, expert = partial(torch_rng, cell.seed), cell.model.expert
    draws, (_, chunk, action_dim) = expert.repeats, label.shape
    keys = [(slot, int(window.visit[t, i]), int(window.tick[t, i])) for i, slot in enumerate(slots)]
    of_slot = [draw_noises(draws, chunk, action_dim, partial(rng, "expert noise", *key)) for key in keys]
    noise = torch.stack(of_slot, dim=1).flatten(0, 1).to(label)
    levels = [torch.randint(expert.steps, (draws,), generator=rng("expert level", *key)) for key in keys]
    uniform = [torch.rand(draws, generator=rng("expert drop", *key)) for key in keys]
    level = torch.stack(levels, dim=1).flatten().to(label.device)
    dropped = torch.stack(uniform, dim=1).flatten().to(label.device) < expert.dropped
    return Noised(mix(label.repeat(draws, 1, 1), noise, level, expert.steps), noise, level, dropped)


def get_moment(window: Window, t: int, slots: Sequence[int], seed: int, store: EpisodeStore | None = None) -> Moment:
    """Describes tick `t` of the window to the recurrence.

    An intervention draws by the visit, not by the episode alone: a policy could memorise noise that repeats at every
    pass over the data.

    Args:
        window: gives episode, step, phase and visit of every slot.
        t: tick of the window.
        slots: numbers of these slots among all slots of the training.
        seed: training seed.
        store: gives the phase events of every episode; None leaves the events out, which only interventions read.
    """
    visits = [f"{slot}:{visit}" for slot, visit in zip(slots, window.visit[t].tolist(), strict=True)]
    return Moment(
        tick=window.tick[t].tolist(),
        phase=[Phase(p) for p in window.phase[t].tolist()],
        key=visits,
        seed=[key(seed, "training visit", visit) for visit in visits],
        events=[events(store.index[i]) for i in window.episode[t].tolist()] if store is not None else None,
    )
