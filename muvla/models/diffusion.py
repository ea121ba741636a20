"""Actions by denoising, as OpenVLA-OFT's diffusion head does it (spec 1.11).

The ACTION tokens hold the embedded noisy actions instead of zeros, a TIME token holds the noise level, and the head
predicts the noise. The schedule is the squared cosine (Nichol and Dhariwal 2021, equation 17) in 50 steps. Sampling is
DDIM without added noise (Song et al. 2021, equation 12, η = 0) over all 50 steps, with predicted actions clipped to
[-1, 1].

Legend: B slots, R draws, H chunk, A action dim, D width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

STEPS = 50
OFFSET, LARGEST_BETA = 0.008, 0.999


@dataclass(frozen=True)
class Noised:
    """Actions mixed with noise."""

    actions: Tensor  # (B, H, A) = √ᾱ·actions + √(1−ᾱ)·noise
    noise: Tensor  # (B, H, A)
    time: Tensor  # (B,) the noise level, in 0 … STEPS−1
    dropped: Tensor | None = None  # (B,) bool, rows whose condition an action expert does not see


@lru_cache(maxsize=4)
def kept_variance(steps: int = STEPS) -> Tensor:
    """Returns (steps,) ᾱ: the share of the actions' variance that is left after each step."""
    share = [math.cos((i / steps + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2 for i in range(steps + 1)]
    beta = [min(1 - after / before, LARGEST_BETA) for before, after in itertools.pairwise(share)]
    return (1 - torch.tensor(beta, dtype=torch.float64)).cumprod(dim=0)


def draw_noise(chunk: int, action_dim: int, generator_of: Callable[[int], torch.Generator]) -> Tensor:
    """Returns (H, A) noise, drawn entry by entry of the chunk: cells of different H share the entries that both
    have."""
    return draw_noises(1, chunk, action_dim, generator_of)[0]


def draw_noises(draws: int, chunk: int, action_dim: int, generator_of: Callable[[int], torch.Generator]) -> Tensor:
    """Returns (draws, H, A) noise, drawn entry by entry of the chunk.

    Args:
        draws: how often the chunk is drawn.
        chunk: H.
        action_dim: A.
        generator_of: the generator of a chunk entry.
    """
    entries = [torch.randn(draws, action_dim, generator=generator_of(entry)) for entry in range(chunk)]
    return torch.stack(entries, dim=1)


def add_noise(actions: Tensor, noise: Tensor, time: Tensor) -> Noised:
    """Mixes (B, H, A) actions with (B, H, A) noise at (B,) noise levels."""
    noise, left = noise.to(actions), kept_variance()[time].view(-1, 1, 1).to(actions)
    return Noised(left.sqrt() * actions + (1 - left).sqrt() * noise, noise, time.to(actions.device))


def denoise(noise: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Turns (B, H, A) pure noise into actions.

    Args:
        noise: (B, H, A).
        predict: returns the noise in `noisy` (B, H, A) at `time` (B,); called STEPS times, the last time at 0.
    """
    actions, left = noise, kept_variance().tolist()
    for t in reversed(range(STEPS)):
        before = left[t - 1] if t else 1.0
        predicted = predict(actions, torch.full((len(noise),), t, device=noise.device))
        clean = ((actions - math.sqrt(1 - left[t]) * predicted) / math.sqrt(left[t])).clamp(-1, 1)
        actions = math.sqrt(before) * clean + math.sqrt(1 - before) * predicted
    return actions


def get_error(predicted: Tensor, label: Tensor, noised: Noised | None) -> Tensor:
    """The error (B, H, A) of a tick, whose mean is the loss.

    Args:
        predicted: actions (B, H, A), or the noise (R·B, H, A) that a head found in noisy labels.
        label: (B, H, A) normalised actions.
        noised: the noisy labels; None for a head that predicts actions.
    """
    if noised is None:
        return (predicted - label).abs()
    error = (predicted - noised.noise) ** 2
    return error if len(error) == len(label) else error.unflatten(0, (-1, len(label))).mean(dim=0)


class NoisyActions(nn.Module):
    """Embeds noisy actions (B, H, A) as (B, H·A, D) ACTION embeddings, number by number, and times (B,) as (B, 1, D)
    TIME."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.fc1 = nn.Linear(1, width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(width, width)

    def forward(self, actions: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(actions.flatten(1)[..., None])))

    def time(self, time: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=time.device) * -math.log(10_000) / (half - 1))
        angles = time[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, None]
