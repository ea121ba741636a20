"""Noise and sampling of the action expert (MemoryVLA spec 3): squared-cosine levels, DDIM and DDPM.

The published code holds the constants in double precision and rounds them to float32 where it uses them. The same
rounding happens here, so that double precision reproduces the published numbers.

Legend: B rows, H chunk, A action dim, S noise levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from muvla.models.diffusion import kept_variance

Predict = Callable[[Tensor, Tensor], Tensor]  # (actions (B, H, A), level (B,)) → noise (B, H, A)


@dataclass(frozen=True)
class Levels:
    """Noise levels, from little noise to much, and the constants of a step at each; float64 tensors (n,)."""

    level: Tensor  # int64, as the expert is told
    left: Tensor  # ᾱ, the share of the actions' variance that is left
    left_before: Tensor  # ᾱ of the level before; 1 at the first
    beta: Tensor

    @property
    def posterior_variance(self) -> Tensor:
        return self.beta * (1 - self.left_before) / (1 - self.left)


@lru_cache(maxsize=16)
def get_levels(steps: int, stride: int = 1) -> Levels:
    """Returns every `stride`-th of S = `steps` levels."""
    level = torch.arange(0, steps, stride)
    left = kept_variance(steps)[level]
    before = torch.cat([torch.ones(1, dtype=left.dtype), left[:-1]])
    return Levels(level, left, before, 1 - left / before)


def mix(actions: Tensor, noise: Tensor, level: Tensor, steps: int) -> Tensor:
    """Mixes actions with noise.

    Args:
        actions, noise: (B, H, A).
        level: (B,) noise levels.
        steps: S.
    """
    left = get_levels(steps).left[level.cpu()]
    keep, add = (x.sqrt().float().to(actions.device).view(-1, 1, 1) for x in (left, 1 - left))
    return keep * actions + add * noise


def sample_ddim(noise: Tensor, predict: Predict, steps: int, stride: int) -> Tensor:
    """Turns noise (B, H, A) into actions by DDIM without added noise (η = 0) and without clipping.

    Args:
        noise: (B, H, A).
        predict: returns the noise at a level.
        steps: S.
        stride: distance of the visited levels.
    """
    levels, actions = get_levels(steps, stride), noise
    for i in reversed(range(len(levels.level))):
        predicted = predict(actions, levels.level[i].expand(len(noise)).to(noise.device))
        clean = _clean(levels, i, actions, predicted)
        before = levels.left_before[i].float()
        actions = clean * before.sqrt().item() + (1 - before).sqrt().item() * predicted
    return actions


def sample_ddpm(noise: Tensor, predict: Predict, steps: int) -> Tensor:
    """Turns noise into actions by DDPM over all S levels, with the variance of the posterior and without clipping.

    Args:
        noise: (S, B, H, A): the start, then what the steps at levels S−1 to 1 add.
        predict: returns the noise at a level.
        steps: S.
    """
    levels, actions = get_levels(steps), noise[0]
    for i in reversed(range(steps)):
        predicted = predict(actions, levels.level[i].expand(len(actions)).to(actions.device))
        clean = _clean(levels, i, actions, predicted)
        beta, left, before = levels.beta[i], levels.left[i], levels.left_before[i]
        of_clean, of_noisy = beta * before.sqrt() / (1 - left), (1 - before) * (1 - beta).sqrt() / (1 - left)
        actions = of_clean.float().item() * clean + of_noisy.float().item() * actions
        if i:
            spread = torch.exp(0.5 * levels.posterior_variance[i].log().float()).item()
            actions = actions + spread * noise[steps - i]
    return actions


def _clean(levels: Levels, i: int, actions: Tensor, predicted: Tensor) -> Tensor:
    """The actions without the predicted noise."""
    left = levels.left[i]
    return (1 / left).sqrt().float().item() * actions - (1 / left - 1).sqrt().float().item() * predicted
