"""`vision_backbone--STEP_checkpoint.pt` of a training with FiLM: both towers with their adapters, and FiLM's layers.

The published training always has adapters and writes this file before they are merged (spec 1.10). A layer `x` stands
in the file as `x.base_layer`, `x.lora_A.default` and `x.lora_B.default`; the patch embedding, a convolution, too. The
published loader needs all three. So reading the file merges the adapters, and writing adds them again.

Legend: r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from muvla.utils.rng import torch_rng

BASE, DOWN, UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"
RANK, ALPHA = 32, 16  # of the published training; its loader always scales by min(r, 16) / r
FILM = (".scale", ".shift")


class VisionFile(Mapping[str, Tensor]):
    """The file's tensors under their names without adapters.

    Adapters are merged when a value is read. A tensor that looks like an adapter and fits no layer keeps its name, so a
    strict reader reports it.
    """

    def __init__(self, stored: dict[str, Tensor]):
        self.stored = stored
        self.adapted = {n.removesuffix(DOWN) for n in stored if n.endswith(DOWN) and self._fits(n.removesuffix(DOWN))}
        self.places: dict[str, tuple[str, ...]] = {}  # name → the stored tensors that hold its numbers
        for name in stored:
            layer, _, leaf = name.rpartition(BASE)
            if layer in self.adapted:
                adapter = (layer + DOWN, layer + UP) if leaf == "weight" else ()
                self.places[f"{layer}.{leaf}"] = (name, *adapter)
            elif not {name.removesuffix(DOWN), name.removesuffix(UP)} & self.adapted:
                self.places[name] = (name,)

    def _fits(self, layer: str) -> bool:
        shapes = [self.stored[layer + n].shape for n in (f"{BASE}weight", DOWN, UP) if layer + n in self.stored]
        if len(shapes) < 3:
            return False
        base, down, up = shapes
        return down[1:] == base[1:] and up[:2] == (base[0], down[0]) and math.prod(up[2:]) == 1

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(self.stored[places[0]].shape) for name, places in self.places.items()}

    def __getitem__(self, name: str) -> Tensor:
        base, *adapter = (self.stored[place] for place in self.places[name])
        if not adapter:
            return base
        down, up = (matrix.float().flatten(1) for matrix in adapter)
        return base.float() + min(len(down), ALPHA) / len(down) * (up @ down).view_as(base)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def make_vision_tensors(values: dict[str, Tensor], given: VisionFile | None) -> dict[str, Tensor]:
    """Returns the tensors of a file from which these values will be read.

    A value that `given` holds is written as `given` stores it. Any other value becomes the base of its layer, with an
    adapter that adds nothing and can be trained further: A as at the start of a training, B zero.
    """
    if given is None:
        layers = {n.removesuffix(".weight") for n, v in values.items() if n.endswith(".weight") and v.ndim > 1}
        adapted = {layer for layer in layers if not layer.endswith(FILM)}
    else:
        adapted = given.adapted
    stored: dict[str, Tensor] = {}
    for name, value in values.items():
        if given is not None and torch.equal(given[name].to(value.dtype), value):
            stored |= {place: given.stored[place] for place in given.places[name]}
            continue
        layer, leaf = name.rsplit(".", 1)
        value = value.detach().to(torch.float32 if layer.endswith(FILM) else torch.bfloat16)
        if layer not in adapted:
            stored[name] = value
            continue
        stored[f"{layer}{BASE}{leaf}"] = value
        if leaf == "weight":
            rank = RANK if given is None else len(given.stored[layer + DOWN])
            down = torch.empty(rank, *value.shape[1:])
            stored[layer + DOWN] = down.normal_(0.0, 1 / rank, generator=torch_rng(0, "adapter", layer))
            stored[layer + UP] = torch.zeros(len(value), rank, *[1] * (value.ndim - 2))
    return stored
