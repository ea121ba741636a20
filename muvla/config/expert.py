"""Configuration of the action expert: a diffusion transformer behind the language model (MemoryVLA spec 3, 13).

Legend: h width of the expert, H chunk, A action dim.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from muvla.config.validation import is_whole, require
from muvla.errors import unknown_name


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes, noise and sampling of the expert; the defaults are the published DiT-L of MemoryVLA."""

    layers: int = 24
    width: int = 1024  # h
    heads: int = 16
    # Initial values of the perception attention. `released`: query, key and value start at zero, so that query and key
    # keep a gradient of exactly zero (spec 3.1). `fixed`: these three start random and the output layer at zero.
    per_attn_init: Literal["released", "fixed"] = "released"
    steps: int = 100  # noise levels
    repeats: int = 4  # draws of noise and noise level for each training sample
    dropped: float = 0.1  # share of draws in which the condition is replaced by the learned null condition
    guidance: float = 1.5  # scale of classifier-free guidance; 1 is none
    # The axis whose first A entries are guided. `action`: every number of the chunk. `time`: the first A steps of the
    # chunk alone, as in CronusVLA's released code.
    guided_axis: Literal["action", "time"] = "action"
    sampler: Literal["ddim", "ddpm"] = "ddim"
    # Limits of the sampled actions before they are scaled back: `clipped` or `binary`, see `muvla.data.normalization`.
    outputs: Literal["clipped", "binary"] = "clipped"
    sampled_steps: int = 10  # noise levels that DDIM visits; DDPM visits all

    def __post_init__(self):
        for name, most in (("layers", 1024), ("width", 2**17), ("heads", 2**12), ("steps", 10_000), ("repeats", 1000)):
            value = getattr(self, name)
            is_size = is_whole(value) and 1 <= value <= most
            require(is_size, f"model.expert.{name}", value, f"1 to {most}", "set a number in this range")
        require(
            self.width % (2 * self.heads) == 0,
            "model.expert.heads",
            self.heads,
            f"a divisor of {self.width}/2, half of model.expert.width",
            "change model.expert.heads or model.expert.width",
        )
        for name, choices in (
            ("per_attn_init", ("released", "fixed")),
            ("guided_axis", ("action", "time")),
            ("sampler", ("ddim", "ddpm")),
            ("outputs", ("clipped", "binary")),
        ):
            if getattr(self, name) not in choices:
                raise unknown_name(f"model.expert.{name}", getattr(self, name), choices)
        require(0 <= self.dropped < 1, "model.expert.dropped", self.dropped, "0 ≤ share < 1", "set the published 0.1")
        require(
            1 <= self.guidance <= 100,
            "model.expert.guidance",
            self.guidance,
            "1 to 100",
            "set the published 1.5, or 1, which guides nothing",
        )
        require(
            self.guidance == 1 or self.dropped > 0,
            "model.expert.guidance",
            self.guidance,
            "1 where model.expert.dropped is 0: the null condition was never trained",
            "set model.expert.guidance to 1, or train with model.expert.dropped = 0.1",
        )
        require(
            is_whole(self.sampled_steps) and self.stride > 0,
            "model.expert.sampled_steps",
            self.sampled_steps,
            f"the number of levels of an even stride through {self.steps}",
            "set a divisor of model.expert.steps, such as the published 10 of 100",
        )

    @property
    def stride(self) -> int:
        """Distance of the noise levels that DDIM visits: the least with `sampled_steps` levels; 0 where none has."""
        strides = range(1, self.steps + 1)
        return next((i for i in strides if math.ceil(self.steps / i) == self.sampled_steps), 0)


# The released sizes S, B and L, and a size for minutes on a CPU.
EXPERTS = {
    "tiny": ExpertConfig(layers=2, width=64, heads=4),
    "DiT-S": ExpertConfig(layers=6, width=384, heads=4),
    "DiT-B": ExpertConfig(layers=12, width=768, heads=12),
    "DiT-L": ExpertConfig(layers=24, width=1024, heads=16),
}


def get_expert(name: str, **changes: object) -> ExpertConfig:
    """Returns an expert by its name, with fields changed: `get_expert("DiT-B", guidance=1.0)`."""
    if name not in EXPERTS:
        raise unknown_name("model.expert", name, EXPERTS)
    return dataclasses.replace(EXPERTS[name], **changes)
