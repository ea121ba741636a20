"""What an update of training tells beside its loss: where the error lies, what the memory does, how far credit flows.

Legend: W window ticks, B slots, H chunk, A action dim, m memory, D width, d distance in ticks.

Looking changes nothing: gradient is asked for on the side, and nothing is drawn or written. It costs about one more
backward pass through the window's last truncation block, so it is done for the updates that are logged.
"""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from muvla.envs.phases import Phase
from muvla.memory.base import Memory, State


class Diagnosis:
    """Of one update. The trainer calls `tick` at every tick of the window, `credit` before its last backward pass,
    `before_update` and `after_update` around the optimizer's step; then `row` is whole."""

    def __init__(self, memory: Memory, names: list[str], parameters: list[Tensor], credit: bool = True):
        """Without `credit` nothing goes back twice through the graph: compiled code may overwrite what its backward
        pass has read, and a second one then gives other gradients."""
        self.memory, self.names, self.parameters, self.credited = memory, names, parameters, credit
        self.error: list[Tensor] = []  # (B, H), weighted, mean over A
        self.weight: list[Tensor] = []  # (B, H)
        self.phase: list[np.ndarray] = []  # (B,)
        self.ratios: list[Tensor] = []  # (B,)
        self.read: list[Tensor] = []  # the memory as each tick read it, (B, m, D)
        self.written: list[State] = []  # and as it left it
        self.row: dict[str, Any] = {}

    def tick(self, error: Tensor, weight: Tensor, phase: np.ndarray, read: Tensor, written: State) -> None:
        """error (B, H, A) weighted, in the graph; weight (B, H); phase (B,); read (B, m, D); written: the state after
        this tick's write, before any cut."""
        self.last = error.sum()
        self.error.append(error.detach().float().mean(dim=-1))
        self.weight.append(weight)
        self.phase.append(phase)
        self.read.append(read)
        self.written.append(written)
        if read.numel():
            old, new = (tokens.detach().float().flatten(1) for tokens in (read, self.memory.read(written)))
            self.ratios.append((new - old).norm(dim=1) / old.norm(dim=1))

    def credit(self, entries: int) -> None:
        """How far back the loss of the window's last tick, a sum of errors over `entries`, sends gradient.

        `gradient_read[d]`: norm over all slots of ∂loss/∂(what was read d ticks before), the way out of the memory;
        `gradient_written[d − 1]`: of ∂loss/∂(what was written d ticks before), the way in. Behind a cut it is exactly
        0, not small. Where a slot's episode begins at that tick, what it read is the memory's initial value, and its
        share of `gradient_read[d]` is what that learns; no tick before it is credited, and `gradient_written` has
        nothing of it. Of several ranks, `entries` are those of all, and the slots this one's.
        """
        if self.credited and self.read[-1].numel():
            states = [[tokens] for tokens in self.read] + [list(state.values()) for state in self.written[:-1]]
            norms = _gradient_norms(self.last / entries, states)
            ticks = len(self.read)
            self.row |= {"gradient_read": norms[:ticks][::-1], "gradient_written": norms[ticks:][::-1]}
        del self.last, self.read, self.written  # they hold the graph

    def before_update(self) -> None:
        self.old = [p.detach().clone() for p in self.parameters]

    def after_update(self) -> None:
        """Completes the row: plain numbers; what a cell or a window does not have is not in it, or None in a list."""
        self.row |= self._losses()
        ratios = torch.cat(self.ratios) if self.ratios else torch.empty(0)
        if ratios.isfinite().any():  # a memory of zeros has no ratio
            self.row["write_ratio"] = ratios[ratios.isfinite()].mean().item()
        self.row["update_ratio"] = self._update_ratios()
        self.row["peak_memory_mb"] = peak_memory(self.parameters[0].device)
        del self.old

    def _losses(self) -> dict[str, Any]:
        """Mean error of what is supervised, by chunk entry and by phase of the tick; phases only where they are
        known."""
        error, weight = (torch.stack(each).double().cpu().numpy() for each in (self.error, self.weight))  # (W, B, H)
        phase = np.stack(self.phase)
        losses: dict[str, Any] = {
            "loss_by_chunk": [_mean(error[..., i], weight[..., i]) for i in range(error.shape[2])]
        }
        if (phase != Phase.UNKNOWN).all():
            of_phase = {p.name.lower(): _mean(error[phase == p], weight[phase == p]) for p in Phase}
            losses["loss_by_phase"] = {name: loss for name, loss in of_phase.items() if loss is not None}
        return losses

    def _update_ratios(self) -> dict[str, float]:
        """‖p' − p‖ / ‖p‖ by part of the policy."""
        members: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(self.names):
            members[part_of(name)].append(i)
        ratios = {}
        for part, own in members.items():
            size = _norm([self.old[i] for i in own])
            if size > 0:
                ratios[part] = _norm([self.parameters[i].detach() - self.old[i] for i in own]) / size
        return ratios


def part_of(name: str) -> str:
    """`vision.dino.layer.0…` → `vision.dino`: the towers and the projector apart, everything else by its module."""
    return ".".join(name.split(".")[: 2 if name.startswith("vision.") else 1])


def peak_memory(device: torch.device) -> int:
    """MB: the most that torch has allocated on a GPU, or that this process has held."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def _gradient_norms(loss: Tensor, groups: list[list[Tensor]]) -> list[float]:
    """Norm of the gradient of `loss` in each group of tensors; the graph and the gradients collected so far stay."""
    wanted = [[t for t in tensors if t.requires_grad] for tensors in groups]
    flat = [t for tensors in wanted for t in tensors]
    gradients = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True) if flat else ())
    return [_norm([g for g in (next(gradients) for _ in tensors) if g is not None]) for tensors in wanted]


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(t.float().square().sum() for t in tensors)) ** 0.5


def _mean(error: np.ndarray, weight: np.ndarray) -> float | None:
    return float(error.sum() / weight.sum()) if weight.any() else None
