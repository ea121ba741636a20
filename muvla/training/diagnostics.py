"""Measurements of one training update beside its loss: where the error lies, what the memory does, how far credit
flows.

Legend: W window ticks, B slots, H chunk, A action dim, m memory, D width, d distance in ticks.

Measuring changes nothing: it adds to no gradient, draws no random number and writes no state. It costs about one more
backward pass through the window's last truncation block, so only logged updates are measured.
"""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from muvla.data.stream import Window
from muvla.envs.phases import Phase
from muvla.memory.base import State, float_leaves


class Diagnosis:
    """Measurements of one update.

    The trainer calls `tick` at every tick of the window, `credit` before its last backward pass, and `before_update`
    and `after_update` around the optimizer's step. Then `row` is complete.
    """

    def __init__(self, names: list[str], parameters: list[Tensor], credit: bool = True):
        """Prepares the measurements.

        Args:
            names: names of the trained parameters.
            parameters: the trained parameters, in the order of `names`.
            credit: False skips the second backward pass. Compiled code may overwrite what its backward pass has
                read, and a second pass then gives wrong gradients.
        """
        self.names, self.parameters, self.with_credit = names, parameters, credit
        self.error: list[Tensor] = []  # (B, H), weighted, mean over A
        self.weight: list[Tensor] = []  # (B, H)
        self.phase: list[np.ndarray] = []  # (B,)
        self.starts_decision: list[np.ndarray] = []  # (B,) bool
        self.ratios: list[Tensor] = []  # (B,)
        self.read: list[State] = []  # the memory as each tick read it
        self.written: list[State] = []  # the memory as each tick left it
        self.row: dict[str, Any] = {}

    def tick(self, error: Tensor, window: Window, t: int, read: State, written: State) -> None:
        """Records one tick.

        Args:
            error: (B, H, A) weighted, in the graph.
            window: the window of the tick.
            t: number of the tick in the window.
            read: the state that the tick read, after interventions.
            written: the state after the tick's write, before any truncation.
        """
        self.last = error.sum()
        self.error.append(error.detach().float().mean(dim=-1))
        self.weight.append(window.weight[t])
        self.phase.append(window.phase[t])
        self.starts_decision.append(window.starts_decision[t])
        self.read.append(read)
        self.written.append(written)
        if any(leaf.numel() for leaf in float_leaves(read).values()):
            old, new = (_flat(state) for state in (read, written))
            self.ratios.append((new - old).norm(dim=1) / old.norm(dim=1))

    def credit(self, entries: int) -> None:
        """Measures how far back the loss of the window's last tick sends gradient.

        `gradient_read[d]` is the norm over all slots of ∂loss/∂(memory read d ticks before), the way out of the memory.
        `gradient_written[d − 1]` is the norm of ∂loss/∂(memory written d ticks before), the way in. Behind a cut the
        gradient is exactly 0.

        On an episode's first step the memory that is read is the learned initial state, so that part of
        `gradient_read[d]` is the gradient of `memory.initial`. No tick before this step is credited, and
        `gradient_written` holds nothing of it.

        `entries` divides the loss, a sum of errors. With several ranks, `entries` counts all ranks, and the slots are
        this rank's.
        """
        if self.with_credit and self.ratios:
            states = [list(state.values()) for state in (*self.read, *self.written[:-1])]
            norms = _gradient_norms(self.last / entries, states)
            ticks = len(self.read)
            self.row |= {"gradient_read": norms[:ticks][::-1], "gradient_written": norms[ticks:][::-1]}
        del self.last, self.read, self.written  # these hold the graph

    def before_update(self) -> None:
        """Remembers the parameters."""
        self.old = [p.detach().clone() for p in self.parameters]

    def after_update(self) -> None:
        """Completes the row with plain numbers. The row omits what a cell or a window does not have; a list has None
        there."""
        self.row |= self._losses()
        ratios = torch.cat(self.ratios) if self.ratios else torch.empty(0)
        if ratios.isfinite().any():  # a memory of zeros has no ratio
            self.row["write_ratio"] = ratios[ratios.isfinite()].mean().item()
        self.row["update_ratio"] = self._update_ratios()
        self.row["peak_memory_mb"] = get_peak_memory(self.parameters[0].device)
        del self.old

    def _losses(self) -> dict[str, Any]:
        """Returns the mean supervised error by chunk entry, by phase of the tick, and of the next action at the first
        step of the decision.

        The losses of phases are left out where a phase is unknown. The first decision step alone needs the memory,
        because later steps can be continued from the robot's own pose.
        """
        error, weight = (torch.stack(each).double().cpu().numpy() for each in (self.error, self.weight))  # (W, B, H)
        phase = np.stack(self.phase)
        losses: dict[str, Any] = {
            "loss_by_chunk": [_mean(error[..., i], weight[..., i]) for i in range(error.shape[2])]
        }
        if (phase != Phase.UNKNOWN).all():
            by_phase = {p.name.lower(): _mean(error[phase == p], weight[phase == p]) for p in Phase}
            losses["loss_by_phase"] = {name: loss for name, loss in by_phase.items() if loss is not None}
        first, start = (error[..., 0], weight[..., 0]), np.stack(self.starts_decision)
        if (at_start := _mean(*(each[start] for each in first))) is not None:
            losses["loss_at_first_decision"] = at_start
        return losses

    def _update_ratios(self) -> dict[str, float]:
        """Returns ‖p' − p‖ / ‖p‖ by part of the policy."""
        members: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(self.names):
            members[get_part(name)].append(i)
        ratios = {}
        for part, indices in members.items():
            size = _norm([self.old[i] for i in indices])
            if size > 0:
                ratios[part] = _norm([self.parameters[i].detach() - self.old[i] for i in indices]) / size
        return ratios


def _flat(state: State) -> Tensor:
    """(B, n) all floating-point numbers of each slot's state."""
    return torch.cat([leaf.detach().float().flatten(1) for leaf in float_leaves(state).values()], dim=1)


def get_part(name: str) -> str:
    """Returns the part of the policy that a parameter belongs to: `vision.dino.layer.0…` → `vision.dino`.

    The towers and the projector are parts of their own; every other parameter belongs to its top module.
    """
    return ".".join(name.split(".")[: 2 if name.startswith("vision.") else 1])


def get_peak_memory(device: torch.device) -> int:
    """Returns MB: the most that torch has allocated on a GPU, or that this process has held on a CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def _gradient_norms(loss: Tensor, groups: list[list[Tensor]]) -> list[float]:
    """Returns the norm of the gradient of `loss` in each group of tensors. The graph and collected gradients stay."""
    in_graph = [[t for t in tensors if t.requires_grad] for tensors in groups]
    flat = [t for tensors in in_graph for t in tensors]
    gradients = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True) if flat else ())
    return [_norm([g for g in (next(gradients) for _ in tensors) if g is not None]) for tensors in in_graph]


def _norm(tensors: list[Tensor]) -> float:
    return float(sum(t.float().square().sum() for t in tensors)) ** 0.5


def _mean(error: np.ndarray, weight: np.ndarray) -> float | None:
    return float(error.sum() / weight.sum()) if weight.any() else None
