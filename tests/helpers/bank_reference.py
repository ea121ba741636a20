"""A bank written as in the papers: one slot, one frame and one entry after the other, with lists in a dictionary.

Independent of `muvla.memory`: only the numbers of the weights are shared.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

Entry = tuple[float, Tensor, int]  # time, (N, D), writes that it holds


class SequentialBank:
    """The banks of all episodes by key; `frame` reads, fuses, writes and consolidates for one frame.

    Args:
        weights: `BankStream.state_dict()`.
        capacity: L.
        heads: of the retrieval.
        rule: merge, counted_merge or fifo.
        fused_write: store the fused tokens.
    """

    def __init__(self, weights: dict[str, Tensor], capacity: int, heads: int, rule: str, fused_write: bool):
        self.w, self.capacity, self.heads, self.rule, self.fused_write = weights, capacity, heads, rule, fused_write
        self.banks: dict[object, list[Entry]] = {}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def code(self, time: float) -> Tensor:
        half = self.w["time_code.hidden.weight"].shape[1] // 2
        angles = [torch.tensor(time).float() * math.exp(-math.log(10000) * i / half) for i in range(half)]
        waves = torch.stack([a.cos() for a in angles] + [a.sin() for a in angles])
        hidden = self.linear("time_code.hidden", waves.to(self.w["time_code.hidden.weight"].dtype))
        return self.linear("time_code.out", hidden * hidden.sigmoid())

    def retrieve(self, x: Tensor, bank: list[Entry]) -> Tensor:
        """(N, D): the blocks with one head and one query token after the other."""
        timed = "time_code.out.weight" in self.w
        values = torch.cat([m for _, m, _ in bank])
        keys = torch.cat([m + self.code(t) if timed else m for t, m, _ in bank])
        block = 0
        while f"retrieval.blocks.{block}.query.weight" in self.w:
            name, rows = f"retrieval.blocks.{block}", []
            k, v = self.linear(f"{name}.key", keys), self.linear(f"{name}.value", values)
            for token in x:
                q, size, parts = self.linear(f"{name}.query", token), len(token) // self.heads, []
                for h in range(self.heads):
                    at = slice(h * size, (h + 1) * size)
                    parts.append(torch.softmax(k[:, at] @ q[at] / math.sqrt(size), 0) @ v[:, at])
                rows.append(self.norm(f"{name}.attention_norm", token + torch.cat(parts)))
            y = torch.stack(rows)
            inner = self.linear(f"{name}.expand", y)
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            x, block = self.norm(f"{name}.feed_forward_norm", y + self.linear(f"{name}.contract", inner)), block + 1
        return x

    def frame(self, key: object, x: Tensor, time: float) -> Tensor:
        """(N, D) fused tokens of one frame of the episode `key`."""
        bank = self.banks.setdefault(key, [])
        h = self.retrieve(x, bank) if bank else x
        if "fusion.gate.weight" in self.w:
            g = torch.sigmoid(self.linear("fusion.gate", torch.cat([x, h], dim=-1)))
            fused = g * x + (1 - g) * h
        else:
            fused = (x + h) / 2
        bank.append((time, fused if self.fused_write else x, 1))
        if len(bank) > self.capacity:
            self.consolidate(bank)
        return fused

    def consolidate(self, bank: list[Entry]) -> None:
        if self.rule == "fifo":
            bank.pop(0)
            return
        alike = [
            sum(float(a @ b / (a.norm() * b.norm())) for a, b in zip(m, n, strict=True)) / len(m)
            for (_, m, _), (_, n, _) in pairwise(bank)
        ]
        i = alike.index(max(alike))
        (time, m, a), (_, n, b) = bank[i : i + 2]
        share = a / (a + b) if self.rule == "counted_merge" else 0.5
        bank[i : i + 2] = [(time, share * m + (1 - share) * n, a + b)]


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter drawn, so that no part is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return module
